"""A regular grid of tokens: a floor that every table of results shows."""

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


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


@register_scorer("uniform")
def uniform(tokens: VisionTokens) -> Tensor:
    """1 on a regular grid of `num_keep` tokens, 0 elsewhere; a floor. Returns [B, N].

    The lines run on through the frames of a clip. Where tokens were dropped already, every so-manieth of the
    rest, as if it were one line; so in each row of a batch with padding.
    """
    b, n = tokens.shape
    frames, rows, columns = tokens.grid
    whole = n == frames * rows * columns
    shape = (frames * rows, columns) if whole else (1, n)
    chosen = regular_grid(*shape, min(n, tokens.num_keep), device=tokens.hidden_states.device)
    scores = torch.zeros(n, dtype=torch.float32, device=chosen.device).scatter(0, chosen, 1.0).expand(b, n)
    if tokens.valid is None:
        return scores
    have = tokens.valid.sum(dim=1, keepdim=True)  # [B, 1] a grid of its own for each row
    count = have.clamp(max=tokens.num_keep)
    shift = torch.where(2 * count >= have, 1, 2)
    cell = torch.arange(tokens.num_keep, device=chosen.device)  # [num_keep]
    place = ((4 * cell + shift) * have // (4 * count)).where(cell < count, n)
    own = scores.new_zeros(b, n + 1).scatter(1, place, 1.0)[:, :n]
    return torch.where((have == n) & whole, scores, own)
