"""Cells of patches on an image's grid that leave together, because a projector makes one row of each."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.lru_cache(maxsize=32)
def patches_of_cells(rows: int, columns: int, size: int) -> Tensor:
    """Raster indices of the patches of each cell, [cells, size²], cells in raster order.

    `rows` and `columns` count cells.
    """
    patches = torch.arange(rows * columns * size**2).view(rows, size, columns, size)
    return patches.permute(0, 2, 1, 3).reshape(rows * columns, size**2)


class Cells:
    """Cells of `side` x `side` patches; with a side of 1 a token is a patch and nothing is reordered."""

    def __init__(self, side: int):
        self.side = side
        self.size = side**2  # M, patches of a token

    def grid(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        """A grid of patches as one of cells; raises ValueError where they do not fit."""
        frames, rows, columns = grid
        if rows % self.side or columns % self.side:
            raise ValueError(
                f"an image of {rows} x {columns} patches has no whole cells of {self.side} x {self.side}; "
                "use the image sizes that the model's processor makes"
            )
        return frames, rows // self.side, columns // self.side

    def in_order(self, x: Tensor, grid: tuple[int, int, int] | None, prefix: int, dim: int) -> Tensor:
        """Axis `dim` of P + N·M rows with the patches of each cell side by side.

        Without a grid they are already.
        """
        if self.side == 1 or grid is None:
            return x
        order = patches_of_cells(grid[1], grid[2], self.side).flatten().to(x.device) + prefix
        return x.index_select(dim, torch.cat([torch.arange(prefix, device=x.device), order]))

    def view(self, patches: Tensor) -> dict[str, Tensor]:
        """Fields of VisionTokens for patches [B, N·M, D] whose cells lie side by side."""
        if self.side == 1:
            return {"hidden_states": patches}
        units = patches.unflatten(1, (-1, self.size))  # [B, N, M, D]
        return {"hidden_states": units.float().mean(dim=2), "patches": units}

    def side_by_side(self, tokens: Tensor) -> Tensor:
        """Merged tokens [B, K, M·D] as patches [B, K·M, D]."""
        return tokens if self.side == 1 else tokens.unflatten(-1, (self.size, -1)).flatten(1, 2)

    def rows(self, positions: Tensor, grid: tuple[int, int, int], prefix: int) -> Tensor:
        """Rows of the unpruned sequence [B, P + K·M] that hold these tokens [B, K]; of padding, any row."""
        patches = positions.clamp(min=0)
        if self.side > 1:
            table = patches_of_cells(grid[1], grid[2], self.side).to(patches.device)
            patches = table[patches].flatten(1)
        front = torch.arange(prefix, device=patches.device).expand(len(patches), -1)
        return torch.cat([front, patches + prefix], dim=1)
