"""What masks the attention of layers after a stage: weights of keys, and the tower's own mask narrowed."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.hooks import RemovableHandle

from .layer_hooks import LayerHooks, refuse_replay
from .rows import find

if TYPE_CHECKING:
    from .plain import PlainTower

TAKES_BIAS = ("eager", "sdpa", "flex_attention")  # attention that adds a float mask to its logits


@dataclass
class Narrowed:
    """What the layers after one stage are handed."""

    positions: Tensor | None = None  # [B, K] tokens that were kept, -1 for padding; None = all
    index: Tensor | None = None  # [B, P + K·M] rows of the unpruned sequence, once somebody asked for them
    bias: Tensor | None = None  # [B, 1, 1, P + K·M] added to the logits of each key
    mask: Tensor | None = None  # the tower's own, with the bias
    rope: tuple[Tensor, ...] | None = None  # the tower's own
    length: int = 0  # rows of the unpruned sequence, where images are padded


def key_bias(sizes: Tensor, weighs: bool, prefix: int, patches: int, dtype: torch.dtype) -> Tensor:
    """Added to the logits of each key, [B, 1, 1, P + K·M]: log(size); where a size is 0, all it takes."""
    # Not as one more channel of queries and keys, which would say the same without a mask: under a CPU's
    # SDPA the bias adds 3 to 8 % to an attention, the channel 9 to 69 % (bench_weighted.py). No
    # GPU was measured.
    weight = sizes.log() if weighs else torch.zeros_like(sizes)
    weight = weight.to(dtype)  # before the fill: the least of float64 is beyond float32
    weight = weight.masked_fill(sizes == 0, torch.finfo(dtype).min)
    return torch.nn.functional.pad(weight.repeat_interleave(patches, dim=1), (prefix, 0))[:, None, None]


def expanded(bias: Tensor) -> Tensor:
    """A bias [B, 1, 1, L] as a mask [B, 1, L, L]: flex attention indexes the query axis."""
    return bias.expand(-1, -1, bias.shape[-1], -1)


def narrow_mask(given: Tensor, index: Tensor, bias: Tensor | None) -> Tensor:
    """A tower's own mask for the rows `index` [B, L'], with the logarithms of sizes `bias` [B, 1, 1, L'].

    The mask is [B, L] where a kernel takes no bias, else [1 or B, 1 or H, L or 1, L], of bools or of what is
    added to logits.
    """
    index = index.to(given.device)
    if given.dim() == 2 and bias is None:
        return given.gather(1, index)
    if given.dim() == 2:  # made for a kernel that gives way to one that takes a bias
        given = given[:, None, None].bool()
    rows = index[:, None, None].expand(-1, given.shape[1], given.shape[2], -1)
    mask = given.expand(len(index), -1, -1, -1).gather(-1, rows)
    if mask.shape[2] > 1:
        columns = index[:, None, :, None].expand(-1, given.shape[1], -1, mask.shape[-1])
        mask = mask.gather(2, columns)
    if bias is None:
        return mask
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=bias.dtype).masked_fill(~mask, torch.finfo(bias.dtype).min)
    least = torch.finfo(mask.dtype).min  # a sum of two would be infinite, and a row of such is NaN
    return (mask + bias.to(mask.dtype)).clamp(min=least).expand(-1, -1, index.shape[1], -1)


class MaskAttention:
    """Hands an attention the mask that its layer does not take."""

    def __init__(self, tower: PlainTower, hooks: LayerHooks):
        self.tower, self.hooks = tower, hooks

    def attach(self) -> RemovableHandle:
        attention = self.tower.attention(self.hooks.layer)
        if self.tower.attention_mask.taken:
            return attention.register_forward_pre_hook(self.mask, with_kwargs=True)
        return attention.register_forward_hook(self.again, prepend=True)

    def narrowed(self, module: nn.Module) -> Narrowed | None:
        """What the stage before kept; None where that is everything."""
        run = self.hooks.call.run
        if run is None:
            refuse_replay(module)
            return None
        narrowed = run.layout[self.hooks.previous_stage]
        return None if narrowed.positions is None else narrowed

    def mask(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        narrowed, run = self.narrowed(module), self.hooks.call.run
        if narrowed is None:
            return None
        return self.tower.narrow_mask(run, narrowed, self.tower.attention_mask, args, kwargs)

    def again(self, module: nn.Module, args: tuple, output: tuple) -> tuple | None:
        """Attend once more, with weights: DINOv2 of Transformers 5.12 hands its kernels no mask at all."""
        narrowed = self.narrowed(module)
        if narrowed is None:
            return None
        query, key, value = (
            find(module, name)(args[0]).unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)
            for name in self.tower.row.projections.split()
        )
        dropout = module.dropout_prob if module.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, expanded(narrowed.bias), dropout)
        return (mixed.transpose(1, 2).flatten(2), *output[1:])


class OwnConfigs:
    """FlashAttention takes no mask of floats: attentions that get one run on SDPA meanwhile."""

    def __init__(self, tower: PlainTower):
        self.tower = tower
        self.made: dict[int, object] = {}  # by layer

    def bind(self, hooks: LayerHooks) -> None:
        """The config that a layer's attention needs now, unless somebody else gave it one."""
        attention, native = self.tower.attention(hooks.layer), self.tower.module.config
        if attention.config is not native and attention.config is not self.made.get(hooks.index):
            return
        if native._attn_implementation in TAKES_BIAS:
            attention.config = native
        elif attention.config is native:
            attention.config = self.made[hooks.index] = copy.copy(native)
            attention.config._attn_implementation = "sdpa"

    def detach(self) -> None:
        for index in self.made:
            self.tower.attention(self.tower.layers[index]).config = self.tower.module.config
        self.made = {}
