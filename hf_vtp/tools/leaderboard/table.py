"""The results of one model as a page shows them: which cells count, and their values with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from ..evaluation.cases import DOWNSAMPLE
from ..evaluation.compare import CONFIDENCE
from .entries import Entry, Point
from .measure import UNPRUNED
from .scores import unpack
from .store import Store

OVER = 0.01  # by so much of the unpruned model's FLOPs, or tokens, a cell may exceed its point


@dataclass(frozen=True)
class Shown:
    """A measured cell; `fair` is False where it spent more than its point allows, and is not ranked."""

    values: dict[str, float]
    items: dict[str, np.ndarray]
    share: float | None
    kept: float | None
    fair: bool
    how: str

    def interval(self, metric: str) -> float:
        """Half of the 95 % interval of the mean, by Student's t."""
        from scipy import stats

        items = self.items[metric]
        if len(items) < 2:
            return 0.0
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, len(items) - 1) * items.std(ddof=1) / sqrt(len(items)))


@dataclass(frozen=True)
class Table:
    """One model's cells by row and point.

    Attributes:
        cells: by (row, key of the point).
        reasons: by row, why it has no result.
        about: command, machine and the like, each kind of value once, of all cells.
    """

    entry: Entry
    unpruned: Shown
    cells: dict[tuple[str, str], Shown]
    reasons: dict[str, str]
    about: dict[str, list]

    @property
    def points(self) -> list[Point]:
        return [point for point in self.entry.all_points if any(key == point.key for _, key in self.cells)]

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def metrics(self) -> list[str]:
        return [name for name in self.entry.metrics if name in self.unpruned.items]

    def fair(self, point: Point) -> list[str]:
        """The rows that are ranked at a point."""
        return [row for row in self.rows if (c := self.cells.get((row, point.key))) is not None and c.fair]

    def best(self, point: Point, metric: str) -> float:
        """The best value of the ranked rows."""
        return max((self.cells[row, point.key].values[metric] for row in self.fair(point)), default=np.nan)


def read_table(store: Store, entry: Entry) -> Table | None:
    """What is on disk of a model; None where the unpruned model was not measured.

    Cells of other items than the unpruned model's do not count, and are said to be to measure again.
    """
    found = store.all(entry.name)
    whole = found.pop(UNPRUNED, {}).get("-")
    if whole is None:
        return None
    cells: dict[tuple[str, str], Shown] = {}
    reasons: dict[str, str] = {}
    about = {name: {whole[name]: None} for name in ("command", "machine", "seeds", "weights")}
    points = {point.key: point for point in entry.all_points}
    for row, own in found.items():
        for key, cell in own.items():
            if key not in points:
                continue
            if (cell["items"], cell["weights"]) != (whole["items"], whole["weights"]):
                reasons[row] = "it was measured on other items or weights, and is to be measured again"
            elif "not_run" in cell:
                reasons.setdefault(row, cell["not_run"])
            else:
                cells[row, key] = shown(row, cell, points[key])
                for name, values in about.items():
                    values[cell[name]] = None
    return Table(
        entry, shown(UNPRUNED, whole, None), cells, reasons, {name: list(v) for name, v in about.items()}
    )


def shown(row: str, cell: dict, point: Point | None) -> Shown:
    """A cell from its file. Smaller images are ranked whatever their grid, the nearest there is, costs."""
    items = {name: unpack(packed) for name, packed in cell["scores"].items()}
    kept = None if cell["kept"] is None else cell["kept"] / cell["total"]
    spent = None if point is None else cell["flop_share"] if point.place == "flops" else kept
    fair = row == DOWNSAMPLE or spent is None or spent <= point.value + OVER
    return Shown(cell["values"], items, cell["flop_share"], kept, fair, cell["how"])
