"""Mean rank and mean relative quality over all models, with bootstrap intervals over their items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .table import Table

DRAWS, SEED = 1000, 0
ENDS = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Standing:
    """One row over all models: means with the ends of their 95 % intervals."""

    row: str
    rank: float
    rank_ends: tuple[float, float]
    quality: float
    quality_ends: tuple[float, float]
    num_cells: int
    num_models: int


@dataclass(frozen=True)
class OfModel:
    """Ranks and relative qualities of one model's rows, [rows, points, 1 + draws], NaN where not ranked."""

    rows: list[str]
    ranks: np.ndarray
    qualities: np.ndarray


def of_model(table: Table) -> OfModel:
    """By its first metric; the first of the last axis is the sample itself, the others draw its items anew.

    All rows of a model see the same draws, so that differences between them keep their pairing.
    """
    from scipy.stats import rankdata

    rows, points, metric = table.rows, table.points, table.metrics[0]
    whole = table.unpruned.items[metric]
    count = len(whole)
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), DRAWS)
    weights = np.concatenate([np.ones((1, count)), draws]).T / count  # [items, 1 + draws]
    unpruned = np.maximum(whole @ weights, 1e-12)
    qualities = np.full((len(rows), len(points), DRAWS + 1), np.nan)
    ranks = qualities.copy()
    for j, point in enumerate(points):
        fair = [i for i, row in enumerate(rows) if row in table.fair(point)]
        if fair:
            means = np.stack([table.cells[rows[i], point.key].items[metric] for i in fair]) @ weights
            qualities[fair, j] = means / unpruned
            ranks[fair, j] = rankdata(-means.round(9), axis=0)
    return OfModel(rows, ranks, qualities)


def standings(found: list[OfModel]) -> list[Standing]:
    """Every row, the best mean rank first: a mean over its points in a model, then over its models."""
    rows = list(dict.fromkeys(row for one in found for row in one.rows))
    made = []
    for row in rows:
        ranks, qualities, cells = [], [], 0
        for one in found:
            if row in one.rows:
                own = one.ranks[one.rows.index(row)]
                there = ~np.isnan(own[:, 0])
                if there.any():
                    cells += int(there.sum())
                    ranks.append(own[there].mean(axis=0))
                    qualities.append(one.qualities[one.rows.index(row)][there].mean(axis=0))
        if ranks:
            rank, quality = np.mean(ranks, axis=0), np.mean(qualities, axis=0)
            made.append(Standing(row, *_ends(rank), *_ends(quality), cells, len(ranks)))
    return sorted(made, key=lambda one: one.rank)


def _ends(values: np.ndarray) -> tuple[float, tuple[float, float]]:
    low, high = np.percentile(values[1:], ENDS)
    return float(values[0]), (float(low), float(high))
