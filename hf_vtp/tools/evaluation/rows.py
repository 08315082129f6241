"""From the scores of every case to the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ... import metrics
from .cases import Case


@dataclass(frozen=True)
class Quality:
    """The quality of one case.

    Attributes:
        values: the metrics' numbers, by name.
        items: by name, the score of every item, in one order for all cases, as paired comparisons need.
        kept: the number of tokens kept of each image.
    """

    values: dict[str, float]
    items: dict[str, list[float]]
    kept: list[int]


def by_row(cases: Sequence[Case]) -> dict[tuple, list[Case]]:
    """The cases of each row of the table, which differ in their seed."""
    rows: dict[tuple, list[Case]] = {}
    for case in cases:
        rows.setdefault(case.row, []).append(case)
    return rows


def mean_items(qualities: Sequence[Quality]) -> dict[str, np.ndarray]:
    """The score of every item, its mean over the seeds, by metric."""
    return {name: np.mean([q.items[name] for q in qualities], axis=0) for name in qualities[0].items}


def make_rows(
    cases: Sequence[Case],
    found: dict[str, Quality],
    work: dict[tuple, dict],
    accuracies: Sequence[str],
) -> list[dict]:
    """One row for each method, ratio and layer: the mean over its seeds, for minima the least.

    `found` is by the case's name, `work` by row; `accuracies` are the metrics to compute lossyness of.
    """
    rows, unpruned, lossyness = [], None, metrics.load("lossyness")  # once: it takes a while
    for key, same in by_row(cases).items():
        row = {**same[0].columns, "num_seeds": len(same), **work[key]}
        qualities = [found[case.name] for case in same]
        row["kept_tokens"] = mean_count([n for q in qualities for n in q.kept])
        for name in qualities[0].values:
            values = [q.values[name] for q in qualities]
            row[name] = None if values[0] is None else float((np.min if "min" in name else np.mean)(values))
        row["seed_std"] = None
        if len(same) > 1:
            row["seed_std"] = {n: float(np.std([q.values[n] for q in qualities], ddof=1)) for n in accuracies}
        items = mean_items(qualities)
        unpruned = items if unpruned is None else unpruned
        for name in accuracies:
            scores = {"predictions": items[name], "references": unpruned[name]}
            row[f"{name}_lossyness"] = lossyness.compute(**scores)["lossyness"]
        rows.append(row)
    if any("flops" in row for row in rows):
        rows = [{"flops": None, **row} for row in rows]
    return rows


def mean_count(counts: Sequence[int]) -> int | float:
    """The mean of numbers of tokens: an int where it is one, else rounded to one place."""
    mean = sum(counts) / len(counts)
    return int(mean) if mean.is_integer() else round(mean, 1)
