"""What surrounds an attention: its projections, heads and rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..names import parameters
from .rows import find

WANTED = ("full_query", "full_key", "full_value")
FUSED = "qkv"
NEXT = "next_"  # before the names of what the next layer's projections gave


def arguments(module: nn.Module, args: tuple, kwargs: dict) -> dict:
    """A forward's arguments by name."""
    return {**dict(zip(parameters(type(module).forward)[1:], args, strict=False)), **kwargs}


def projections(attention: nn.Module, names: str, wanted: tuple[str, ...]) -> dict[str, nn.Module]:
    """The modules of an attention that give its queries, keys and values, or all three at once, by name."""
    found = [find(attention, name) for name in names.split()]
    if len(found) == 1:
        return {FUSED: found[0]}
    return {name: module for name, module in zip(WANTED, found, strict=True) if name in wanted}


@torch.no_grad()
def as_if_next(
    hidden_states: Tensor, norm: nn.Module | None, projections: dict[str, tuple[nn.Module, ...]]
) -> dict[str, Tensor]:
    """What the projections of a layer would give for these states, by name; `norm` stands before them."""
    there = hidden_states.device
    if norm is not None:
        hidden_states = norm(on_device_of(norm, hidden_states))
    found = {}
    for name, modules in projections.items():
        x = hidden_states
        for module in modules:
            x = module(on_device_of(module, x))
        found[NEXT + name] = x.to(there)
    return found


def on_device_of(module: nn.Module, x: Tensor) -> Tensor:
    """`x` where a module's weights are; weights that are offloaded come to `x`."""
    weight = next(module.parameters(), x)
    return x if weight.is_meta else x.to(weight.device)


def own_and_next(recorded: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What was recorded of a layer, and what the next would give; both with the rotary positions."""
    own = {name: x for name, x in recorded.items() if not name.startswith(NEXT)}
    later = {name.removeprefix(NEXT): x for name, x in recorded.items() if name.startswith(NEXT)}
    if later and "position_embeddings" in own:
        later["position_embeddings"] = own["position_embeddings"]
    return own, later


def as_next(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries and keys under the names that VisionTokens has for the next layer's."""
    return {name.replace("full_", NEXT): found[name] for name in WANTED[:2]}


def heads(
    recorded: dict[str, Tensor], attention: nn.Module, config: object, needs: set[str]
) -> dict[str, Tensor]:
    """Recorded queries, keys and values [B, L, D] as [B, H, L, d], rotated where attention is needed."""
    recorded = dict(recorded)
    rope = recorded.pop("position_embeddings", None)
    count = num_heads(attention, config)
    if FUSED in recorded:
        parts = recorded.pop(FUSED).chunk(3, dim=-1)
        recorded = dict(zip(WANTED, parts, strict=True))
        if "value" not in needs:
            recorded.pop("full_value")
    found = {name: x.unflatten(-1, (count, -1)).transpose(1, 2) for name, x in recorded.items()}
    if rope is not None and "attention" in needs:
        for name in WANTED[:2]:
            found[name] = rotated(found[name], *rope)
    return found


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys [B, H, L, d] turned by rotary positions [..., K, d], the last K tokens of each."""
    front, x = x.tensor_split([x.shape[2] - cos.shape[-2]], dim=2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([front, x * cos + torch.cat([-second, first], dim=-1) * sin], dim=2)


def num_heads(attention: nn.Module, config: object) -> int:
    """Heads of an attention."""
    count = getattr(attention, "num_heads", None)
    return config.num_attention_heads if count is None else count


def narrow_rope(rope: tuple[Tensor, ...], index: Tensor, length: int) -> tuple[Tensor, ...]:
    """Rotary positions of each image's tokens `index` [B, P + K] among `length`, [B, 1, K, d].

    They are [N, d] or [1 or B, N, d], of all tokens or of the last N, and broadcast over heads afterwards.
    """
    bare = length - rope[0].shape[-2]  # prefix tokens that are not rotated
    patches = (index[:, bare:] - bare).unsqueeze(-1)
    return tuple(
        x.expand(len(index), -1, -1).gather(1, patches.expand(-1, -1, x.shape[-1])).unsqueeze(1) for x in rope
    )


class PerImage:
    """Rotary positions [B, 1, K, d] for attention that takes [K, d] and puts the batch in front itself."""

    def __init__(self, rope: Tensor):
        self.rope = rope

    def unsqueeze(self, dim: int) -> Tensor:
        return self.rope.squeeze(1)


class PerHead(PerImage):
    """The same for attention whose heads stand before the tokens, [B, H, K, d]."""

    def unsqueeze(self, dim: int) -> Tensor:
        return self.rope


def scattered(x: Tensor, index: Tensor, length: int) -> Tensor:
    """Rows of `x` [B, K, D] at their places `index` [B, K] among `length`, zeros elsewhere.

    A negative index is padding.
    """
    target = index.to(x.device).masked_fill(index.to(x.device) < 0, length).unsqueeze(-1).expand_as(x)
    full = x.new_zeros(len(x), length + 1, x.shape[-1])
    return full.scatter(1, target, x)[:, :length]
