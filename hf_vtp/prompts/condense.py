"""Prompts without the placeholders of dropped tokens: the only code that knows ids, masks and positions.

A prompt is condensed once, before the language model: columns of dropped placeholders and of padding leave,
rows that keep different numbers are padded on the left, and kept tokens take their positions along. Nothing
downstream knows that anything was dropped, so caches, masks and lengths agree everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..pruning.tokens import take

MEMORY = "vtp_prompt"  # the attribute of a cache that remembers the prompt it was filled with


@dataclass(frozen=True)
class Condensed:
    """A condensed prompt: B rows of n full and m condensed columns."""

    index: Tensor  # [B, m] the full column that each condensed one holds
    mask: Tensor  # [B, m] 1 for a token, 0 for padding
    # [B, n] condensed column that each full one shows: its own or the last kept before it; -1 none
    back: Tensor
    position_ids: Tensor  # [..., B, m]
    next_position: Tensor  # [..., B, 1] of the token after the prompt

    def take(self, x: Tensor) -> Tensor:
        """Condensed columns of `x` [B, n] or [B, n, D]; where padding is, whatever column stands in."""
        return take(x, self.index.to(x.device))

    def widen(self, x: Tensor) -> Tensor:
        """[B, m, D] back to [B, n, D]: a dropped row repeats the last kept before it, zeros if none is.

        Of the last k of the condensed columns, [B, k, D], the last k of the full ones.
        """
        absent = self.mask.shape[1] - x.shape[1]
        back = self.back.to(x.device).unsqueeze(-1)
        if absent:
            back = back[:, -x.shape[1] :] - absent
        return x.gather(1, back.clamp(min=0).expand(-1, -1, x.shape[-1])).masked_fill(back < 0, 0)


def condense(
    alive: Tensor, position_ids: Tensor, next_position: Tensor, positions: str, start: Tensor | int = 0
) -> Condensed:
    """Condense a prompt to its `alive` columns [B, n], True = stays.

    `position_ids` [..., B, n] and `next_position` [..., B, 1] are those of the full prompt; "compact" numbers
    the columns that stay, row by row, from `start` [..., B, 1] on without gaps.
    """
    n = alive.shape[1]
    place = alive.long().cumsum(dim=-1)  # [B, n], 1 for the first column that stays
    counts = place[:, -1:]
    m = int(counts.max())
    index = torch.sort(alive.to(torch.uint8), dim=-1, stable=True).indices[
        :, n - m :
    ]  # what stays is on the right
    mask = alive.gather(1, index).long()
    back = torch.where(place > 0, place - 1 + m - counts, -1)
    axes = position_ids.shape[:-2]  # m-RoPE has three rows of positions
    if positions == "compact":
        position_ids = ((mask.cumsum(dim=-1) - 1).clamp(min=0) + start).expand(*axes, -1, -1)
        next_position = (counts + start).expand(*axes, -1, -1)
    else:
        position_ids = position_ids.gather(-1, index.expand(*axes, -1, -1))
    return Condensed(index, mask, back, position_ids, next_position)


@dataclass(frozen=True)
class Memory:
    """What a cache remembers of the prompts in it, so that later calls may go on speaking of full columns."""

    index: Tensor  # [B, m] full column of each condensed one, over all prompts so far
    mask: Tensor  # [B, m]
    position_ids: Tensor  # [..., B, m]
    next_position: Tensor  # [..., B, 1] of the token after column m
    length: int  # full columns that stand for these m
    log_sizes: Tensor | None = None  # [B, m] float32, what language_weights adds; None = nothing

    @property
    def dropped(self) -> int:
        """How many columns the caller counts more than the cache holds."""
        return self.length - self.mask.shape[1]

    def rows(self, batch: int) -> Memory:
        """The same for a batch in which every row became several (beams, returned sequences)."""
        have = self.mask.shape[0]
        if batch == have:
            return self
        if batch % have:
            raise ValueError(f"the cache was filled with {have} rows; it cannot go on with {batch}")
        names = ["index", "mask"] + ["log_sizes"] * (self.log_sizes is not None)
        flat = {name: repeat_rows(getattr(self, name), batch, dim=0) for name in names}
        placed = {
            name: repeat_rows(getattr(self, name), batch, dim=-2)
            for name in ("position_ids", "next_position")
        }
        return replace(self, **flat, **placed)

    def upto(self, columns: int) -> Memory:
        """The same with the tokens generated since counted in: `columns` condensed columns in all."""
        new = columns - self.mask.shape[1]
        if new <= 0:
            return self
        steps = torch.arange(new, device=self.mask.device)
        return Memory(
            torch.cat([self.index, (steps + self.length).expand(len(self.index), -1)], dim=-1),
            torch.cat([self.mask, torch.ones_like(self.mask[:, :1]).expand(-1, new)], dim=-1),
            torch.cat([self.position_ids, self.next_position + steps], dim=-1),
            self.next_position + new,
            self.length + new,
            None if self.log_sizes is None else torch.nn.functional.pad(self.log_sizes, (0, new)),
        )

    def full(self, columns: Tensor) -> Tensor:
        """The full columns [B, k] of condensed ones [k], which may be of what was generated since."""
        m = self.mask.shape[1]
        index = self.index.to(columns.device)[:, columns.clamp(max=m - 1)]
        return torch.where(columns < m, index, columns + self.dropped)

    def then(self, prompt: Condensed, length: int, log_sizes: Tensor | None = None) -> Memory:
        """The same with another condensed prompt of `length` full columns, and its `log_sizes`, after it."""
        before = self.position_ids.expand(*prompt.position_ids.shape[:-2], -1, -1)
        weights = [self.log_sizes, log_sizes]
        if any(x is not None for x in weights):
            masks = self.mask, prompt.mask
            weights = [m.float() * 0 if x is None else x for x, m in zip(weights, masks, strict=True)]
        return Memory(
            torch.cat([self.index, prompt.index + self.length], dim=-1),
            torch.cat([self.mask, prompt.mask], dim=-1),
            torch.cat([before, prompt.position_ids], dim=-1),
            prompt.next_position,
            self.length + length,
            None if weights[1] is None else torch.cat(weights, dim=-1),
        )

    def take(self, x: Tensor) -> Tensor:
        """Condensed columns of `x` [B, length] or [B, length, D]."""
        return take(x, self.index.to(x.device))


def plain_memory(mask: Tensor, next_position: Tensor) -> Memory:
    """A Memory of columns with the mask [B, m], none of which was dropped."""
    columns = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return Memory(columns, mask, columns, next_position, mask.shape[1])


def repeat_rows(x: Tensor, batch: int, dim: int) -> Tensor:
    """Every row repeated until there are `batch`, as `generate` does for beams and returned sequences."""
    return x.repeat_interleave(batch // x.shape[dim], dim=dim)


def remembered(cache: object) -> Memory | None:
    """The Memory of a cache that holds something; a cache emptied since (`reset`) forgets."""
    memory = getattr(cache, MEMORY, None)
    if memory is not None and int(cache.get_seq_length()) == 0:
        delattr(cache, MEMORY)
        return None
    return memory
