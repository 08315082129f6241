"""The floor that any user can have without pruning: a smaller image."""

from __future__ import annotations

from ...pruning.tokens import num_keep


def nearest_grid(rows: int, columns: int, keep_ratio: float) -> tuple[int, int]:
    """Rows and columns of a grid of about that shape whose number of tokens is nearest to the share kept.

    Among grids as near, the one whose shape is most like the original's.
    """
    wanted = num_keep(rows * columns, keep_ratio)

    def badness(grid: tuple[int, int]) -> tuple[float, float]:
        r, c = grid
        return abs(r * c - wanted), abs(r * columns - c * rows)

    shapes = [(r, max(1, round(r * columns / rows))) for r in range(1, rows + 1)]
    shapes += [(max(1, round(c * rows / columns)), c) for c in range(1, columns + 1)]
    return min(shapes, key=badness)


def smaller(processor, side: int) -> dict:
    """Arguments of an image processor's call that has it make squares of that side."""
    size = dict(processor.size)
    square = {"height": side, "width": side}
    if "shortest_edge" in size:
        return {"size": {"shortest_edge": side}, "crop_size": square}
    return {"size": square}
