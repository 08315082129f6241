"""Units of several images packed in one sequence: which rows are theirs, and how long each window is."""

from __future__ import annotations

import torch
from torch import Tensor

from ..pruning.run import Group


def of_units(x: Tensor, slots: Tensor, size: int) -> Tensor:
    """Rows of `x` [patches, ...] that belong to these units of `size` patches each."""
    return x.unflatten(0, (-1, size))[slots.to(x.device)].flatten(0, 1)


def seqlens(cu_seqlens: Tensor, slots: Tensor, size: int, on_device: bool) -> Tensor:
    """Cumulative lengths, in patches, of what is kept of each window or frame; `slots` ascend.

    FlashAttention takes them as they are. Other attention splits by them on the host, three syncs a block
    where they are on a device, and Transformers' SDPA cannot reshape what has no rows. So for it they go
    to the CPU, without the empty: one sync for each stage and kind of block instead of three in every
    block that follows, and one break of a compiled graph more than the blocks' own.
    """
    kept = torch.searchsorted(slots, cu_seqlens.to(slots) // size) * size
    if on_device:
        return kept.to(cu_seqlens)
    return kept.cpu().unique_consecutive().to(cu_seqlens.dtype)


def whole_groups(grids: list[tuple[int, int, int]]) -> list[Group]:
    """Images with equal grids together, nothing dropped yet."""
    by_grid: dict[tuple, list[int]] = {}
    for image, grid in enumerate(grids):
        by_grid.setdefault(grid, []).append(image)
    return [Group(images, None, None, None) for images in by_grid.values()]
