"""A grid whose cells elect."""

import torch
from torch import Tensor

from ...pruning.grid import grid_lines
from ...pruning.similarity import rank_within
from ...pruning.tokens import VisionTokens
from . import register_selector
from .top_k import highest


@register_selector("stratified", paper="this project")
def stratified(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The image is cut into `num_keep` cells of about one size, and each keeps its highest score.

    Lines of cells as in the `uniform` grid: L of them, line l with m = (l + 1)·K // L - l·K // L cells; the
    token at (row, column) lies in line row · L // rows and there in cell column · m // columns. Where tokens
    were dropped already, runs of neighbours in raster order take the place of cells. Returns [B, K].
    """
    b, n = scores.shape
    frames, height, columns = tokens.grid
    rows = frames * height
    if n != rows * columns:
        rows, columns = 1, n
    count = tokens.num_keep
    lines = grid_lines(rows, columns, count)
    place = torch.arange(n, device=scores.device)
    line = place // columns * lines // rows  # of cells, from the top
    first, after = line * count // lines, (line + 1) * count // lines
    cell = first + place % columns * (after - first) // columns
    return highest(-rank_within(cell.expand(b, n), scores).float(), count)
