"""A regular grid of tokens over an image."""

import torch
from torch import Tensor


def grid_lines(rows: int, columns: int, count: int) -> int:
    """Into how many lines `count` cells of a rows × columns image go, with equal spacing both ways.

    √(count · rows / columns) rounded, at least so many that the cells fit, at most `rows` and `count`; all
    rows from half of the cells on.
    """
    if 2 * count >= rows * columns:
        return rows
    return min(max(round((count * rows / columns) ** 0.5), -(-count // columns)), rows, count)


def regular_grid(rows: int, columns: int, count: int, device: torch.device | None = None) -> Tensor:
    """Raster indices of `count` cells spread evenly over a rows × columns image, ascending, [count].

    As many lines L as make the spacing equal both ways, the cells shared out among the lines as evenly as
    they go; a perfect sub-grid where `count` allows one, and from half of the cells on a chequerboard, since
    empty lines cover worse. Line l has m = (l + 1)·count // L - l·count // L cells, in row ⌊(l +
    ½)·rows / L⌋ and columns ⌊(c + ½)·columns / m⌋, c below m; on a chequerboard c + ¼ and, in every other
    line, c + ¾. Arithmetic on the device, so that nothing is copied to it.
    """
    dense = 2 * count >= rows * columns
    lines = grid_lines(rows, columns, count)
    cell = torch.arange(count, device=device)
    line = ((cell + 1) * lines - 1) // count  # cells i with i·lines/count in [line, line + 1)
    first = (line * count) // lines
    per_line = ((line + 1) * count) // lines - first
    shift = 1 + 2 * (line % 2) if dense else 2  # quarters of the spacing
    row = (2 * line + 1) * rows // (2 * lines)
    column = (4 * (cell - first) + shift) * columns // (4 * per_line)
    return row * columns + column
