"""Rows of a packed sequence: which belong to a unit of the merger, to a window or frame, to a head."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..pruning.run import Group
from .cells import patches_of_cells
from .rows import Grid, TowerRow
from .states import FUSED, WANTED, num_heads

if TYPE_CHECKING:
    from ..config import VTPConfig
    from .tower import Tower

Units = tuple[list[Grid], Tensor]  # grids of images in units, and [units, M] the rows that hold each


def consecutive(module: nn.Module, arguments: dict, grids: list[Grid]) -> Units:
    """Units of `spatial_merge_size`² rows side by side, in raster order or in the order of windows."""
    side, order = module.spatial_merge_size, arguments.get("window_index")
    rows = torch.arange(sum(map(math.prod, grids))).view(-1, side**2)
    if order is not None:
        rows = rows[torch.argsort(order.to(rows.device))]
    return [(t, h // side, w // side) for t, h, w in grids], rows


def of_merge_sizes(module: nn.Module, arguments: dict, grids: list[Grid]) -> Units:
    """The same where a call says how long the side is; raises NotImplementedError for several lengths."""
    sides = set(arguments["merge_sizes"].tolist())
    if len(sides) > 1:
        raise NotImplementedError(
            f"images of one call have merge_sizes {sorted(sides)}; pruning takes one for all of them"
        )
    side = sides.pop()
    rows = torch.arange(sum(map(math.prod, grids))).view(-1, side**2)
    return [(t, h // side, w // side) for t, h, w in grids], rows


def squares(module: nn.Module, arguments: dict, grids: list[Grid]) -> Units:
    """Units that are squares of patches in raster order."""
    side, rows, start = module.config.spatial_merge_size, [], 0
    for frames, height, width in grids:
        square = patches_of_cells(height // side, width // side, side)
        for _ in range(frames):
            rows.append(square + start)
            start += height * width
    return [(t, h // side, w // side) for t, h, w in grids], torch.cat(rows)


def of_two_frames(module: nn.Module, arguments: dict, grids: list[Grid]) -> Units:
    """`consecutive`, where units of two frames of a video that follow each other are one."""
    found, rows = consecutive(module, arguments, grids)
    if any(t > 1 for t, _, _ in grids):
        parts = rows.split([math.prod(grid) for grid in found])
        pairs = zip(parts, found, strict=True)
        pairs = [x.view(t // 2, 2, h * w, -1).transpose(1, 2) for x, (t, h, w) in pairs]
        rows = torch.cat([x.flatten(0, 1).flatten(1) for x in pairs])  # [units, 2·M]
        found = [(t // 2, h, w) for t, h, w in found]
    return found, rows


def merged(module: nn.Module, patches: Tensor) -> Tensor:
    """What a tower's merger makes of patches [units·M, D], [units, D']."""
    return module.merger(patches)


def downsampled(module: nn.Module, patches: Tensor) -> Tensor:
    """The same of a merger after a convolution."""
    side = module.spatial_merge_size
    squares = module.post_layernorm(patches).unflatten(0, (-1, side, side)).permute(0, 3, 1, 2)
    return module.merger(module.downsample(squares).flatten(1))


@dataclass(frozen=True)
class PackedRow(TowerRow):
    """A vision tower that packs the patches of all images in one sequence, by where its parts are.

    Args:
        merger: path to the module of the tower whose output has a row for each unit; "" where a projector
            after the tower needs a row for each patch.
        last: path to the last module whose output has a row for each patch, where there is no `merger`.
        deepstack: path to the mergers after the blocks of the tower's `deepstack_visual_indexes`.
        norms: names in the attention of norms of queries and of keys, head by head.
        units: a function of the tower, its forward's arguments and the grids of its images.
        project: a function of the tower and of patches, for methods that compare units with text.
    """

    layers: str = "blocks"
    attention: str = "attn"
    projections: str = "qkv"
    prefix: int = 0
    cls: bool = False
    alone: bool = False
    merger: str = "merger"
    last: str = ""
    deepstack: str = ""
    norms: str = ""
    units: Callable[[nn.Module, dict, list[Grid]], Units] = consecutive
    project: Callable[[nn.Module, Tensor], Tensor] = merged

    @property
    def row_wise(self) -> bool:
        return bool(self.merger)

    def make(self, module: nn.Module, config: VTPConfig, stages: list[tuple[int, float]], **options) -> Tower:
        from .packed import PackedTower

        return (self.pattern or PackedTower)(self, module, config, stages, **options)


def heads(
    recorded: dict[str, Tensor], attention: nn.Module, row: PackedRow, needs: set[str]
) -> dict[str, Tensor]:
    """Recorded queries, keys and values of a packed sequence, [rows, H, d], rotated where it matters."""
    recorded = dict(recorded)
    rope = recorded.pop("position_embeddings", None)
    count = num_heads(attention, getattr(attention, "config", None))
    if FUSED in recorded:
        parts = recorded[FUSED].unflatten(-1, (3, count, -1)).unbind(1)
        found = dict(zip(WANTED, parts, strict=True))
    else:
        found = {name: x.reshape(-1, count, x.shape[-1] // count) for name, x in recorded.items()}
    for name, norm in zip(WANTED, row.norms.split(), strict=False):
        found[name] = getattr(attention, norm)(found[name])
    if rope is not None and "attention" in needs:
        functions = vars(sys.modules[type(attention).__module__])
        query, key = found["full_query"], found["full_key"]
        if isinstance(rope, Tensor):  # angles
            rotate = functions["apply_rotary_pos_emb_vision"]
            query, key = (rotate(x.unsqueeze(0), rope).squeeze(0) for x in (query, key))
        else:
            query, key = functions["apply_rotary_pos_emb_vision"](query, key, *rope)
        found["full_query"], found["full_key"] = query, key
    return {name: x for name, x in found.items() if name != "full_value" or "value" in needs}


def seqlens(cu_seqlens: Tensor, rows: Tensor, on_device: bool) -> Tensor:
    """Cumulative lengths of what is kept of each window or frame; the kept `rows` ascend.

    FlashAttention takes them as they are. Other attention splits by them on the host, three syncs a block
    where they are on a device, and Transformers' SDPA cannot reshape what has no rows. So for it they go
    to the CPU, without the empty: one sync for each stage and kind of block instead of three in every
    block that follows, and one break of a compiled graph more than the blocks' own.
    """
    kept = torch.searchsorted(rows, cu_seqlens.to(rows))
    if on_device:
        return kept.to(cu_seqlens)
    return kept.cpu().unique_consecutive().to(cu_seqlens.dtype)


def whole_groups(grids: list[Grid]) -> list[Group]:
    """Images with equal grids together, nothing dropped yet."""
    by_grid: dict[tuple, list[int]] = {}
    for image, grid in enumerate(grids):
        by_grid.setdefault(grid, []).append(image)
    return [Group(images, None, None, None) for images in by_grid.values()]
