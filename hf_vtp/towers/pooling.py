"""What reads all tokens of a tower at once: heads that pool them, and means over patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..names import Argument

if TYPE_CHECKING:
    from .plain import Narrowed, PlainTower


def attach(tower: PlainTower, head: nn.Module | None) -> list:
    """Hooks that have each kept token weigh by its size in a head, and padding not at all.

    Raises ValueError for a head that pools in a way not known here.
    """
    if head is None:  # the config can switch it off
        return []
    attention = getattr(head, "attention", None)
    if isinstance(attention, nn.MultiheadAttention):
        hooks = Probe(tower, head)
        handles = [attention.register_forward_pre_hook(hooks.weigh, with_kwargs=True)]
        if hooks.mask.taken:
            handles.append(head.register_forward_pre_hook(hooks.unmask, with_kwargs=True))
        return handles
    if hasattr(head, "k_proj") and hasattr(head, "cls_token"):
        hooks = Rows(tower)
        return [head.register_forward_pre_hook(hooks.repeat), head.register_forward_hook(hooks.by_length)]
    raise ValueError(
        f"{type(head).__name__} pools tokens in a way that hf_vtp does not know; choose a method that drops "
        "an exact number of tokens, as 'qk_topk' does"
    )


class Head:
    """The head of a tower that is pruned with masks."""

    def __init__(self, tower: PlainTower):
        self.tower = tower

    def narrowed(self) -> Narrowed | None:
        """What the last stage of the forward in progress kept; None where that is everything."""
        run = self.tower.call.run
        narrowed = None if run is None else run.layout.get(max(self.tower.stages))
        return None if narrowed is None or narrowed.positions is None else narrowed


class Probe(Head):
    """A learned query that attends to all tokens with nn.MultiheadAttention."""

    def __init__(self, tower: PlainTower, head: nn.Module):
        super().__init__(tower)
        self.mask = Argument(head, "attention_mask")

    def weigh(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Add log(size) to the logits of each token."""
        narrowed = self.narrowed()
        if narrowed is None or narrowed.bias is None:
            return None
        return args, {**kwargs, "key_padding_mask": narrowed.bias[:, 0, 0]}

    def unmask(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Take away the mask of the full length: the bias says what is padding."""
        return None if self.narrowed() is None else self.mask.put(None, args, kwargs)


class Rows(Head):
    """A learned query whose attention takes no mask: tokens weigh by the number of their rows."""

    def repeat(self, module: nn.Module, args: tuple) -> tuple | None:
        """Give every token that was absorbed the row of its group, [B, K, D] to [B, N, D]."""
        narrowed = self.narrowed()
        if narrowed is None or not self.tower.weighs:
            return None
        run = self.tower.call.run
        sizes = run.stages[max(self.tower.stages)][0].sizes  # whole numbers whose sum is N
        n = self.tower.counts(run.grids)[0]
        ends = sizes.cumsum(dim=-1)
        rows = torch.arange(n, dtype=ends.dtype, device=ends.device).expand(len(ends), -1).contiguous()
        index = torch.searchsorted(ends, rows, right=True)  # of each row, the group that it belongs to
        return (args[0].gather(1, index.unsqueeze(-1).expand(-1, -1, args[0].shape[-1])), *args[1:])

    def by_length(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """Pool once more, images of one count at a time, where some are padded."""
        narrowed = self.narrowed()
        if narrowed is None or self.tower.weighs:
            return None
        counts = (narrowed.positions >= 0).sum(dim=1).tolist()
        for count in set(counts) - {narrowed.positions.shape[1]}:
            images = torch.tensor([b for b, own in enumerate(counts) if own == count], device=output.device)
            output = output.index_copy(0, images, module.forward(args[0][images, :count]))
        return output


def weighed(hidden_states: Tensor, sizes: Tensor | None, prefix: int) -> Tensor:
    """Tokens [B, P + K, D] whose mean over the K rows is the mean weighed by `sizes` [B, K]."""
    if sizes is None:
        return hidden_states
    share = sizes / sizes.mean(dim=-1, keepdim=True)
    patches = (hidden_states[:, prefix:].float() * share.unsqueeze(-1)).to(hidden_states.dtype)
    return torch.cat([hidden_states[:, :prefix], patches], dim=1)
