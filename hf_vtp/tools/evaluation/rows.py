"""From the scores of every case to the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ... import metrics
from .cases import Case


@dataclass(frozen=True)
class Quality:
    """What was found of one case.

    Attributes:
        values: the metrics' numbers, by name.
        items: by name, the score of every item, in one order for all cases: what paired comparisons take.
        kept: tokens left of each image.
    """

    values: dict[str, float]
    items: dict[str, list[float]]
    kept: list[int]


def by_row(cases: Sequence[Case]) -> dict[tuple, list[Case]]:
    """The cases of each row of the table: they differ in their seed."""
    rows: dict[tuple, list[Case]] = {}
    for case in cases:
        rows.setdefault(case.row, []).append(case)
    return rows


def mean_items(qualities: Sequence[Quality]) -> dict[str, np.ndarray]:
    """By metric, every item's score, its mean over the seeds."""
    return {name: np.mean([q.items[name] for q in qualities], axis=0) for name in qualities[0].items}


def make_rows(
    cases: Sequence[Case],
    found: dict[str, Quality],
    work: dict[tuple, dict],
    accuracies: Sequence[str],
) -> list[dict]:
    """One row for each method, ratio and layer: the mean over its seeds (of minima the least).

    `found` is by the case's name, `work` by row; `accuracies` are the metrics that lossyness is given of.
    """
    rows, whole = [], None
    for key, same in by_row(cases).items():
        row = dict(zip(("method", "keep_ratio", "layer"), key, strict=True))
        row |= {"num_seeds": len(same), **work[key]}
        qualities = [found[case.name] for case in same]
        row["kept_tokens"] = mean_count([n for q in qualities for n in q.kept])
        for name in qualities[0].values:
            over = [q.values[name] for q in qualities]
            row[name] = None if over[0] is None else float((np.min if "min" in name else np.mean)(over))
        row["seed_std"] = None
        if len(same) > 1:
            row["seed_std"] = {n: float(np.std([q.values[n] for q in qualities], ddof=1)) for n in accuracies}
        items = mean_items(qualities)
        whole = items if whole is None else whole
        for name in accuracies:
            told = {"predictions": items[name], "references": whole[name]}
            row[f"{name}_lossyness"] = metrics.load("lossyness").compute(**told)["lossyness"]
        rows.append(row)
    return rows


def mean_count(counts: Sequence[int]) -> int | float:
    """The mean of numbers of tokens: whole where it is, else to one place."""
    mean = sum(counts) / len(counts)
    return int(mean) if mean.is_integer() else round(mean, 1)
