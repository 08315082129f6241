"""Methods against the best baseline of their cell, and against named methods, item by item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ..bench.cli import UsageError
from .cases import BASELINES, DOWNSAMPLE, UNPRUNED, Case
from .rows import Quality, by_row, mean_items

CONFIDENCE = 0.95
HOW = (
    "95 % intervals of Student's t for the mean of the items' paired differences (scipy.stats.ttest_1samp); "
    "of random methods an item's score is the mean over the seeds. The best baseline is chosen by these very "
    "items, which favours the baseline"
)
BEST = "best_floor"  # what results on disk call the best baseline


def compare(cases: Sequence[Case], found: dict[str, Quality]) -> list[dict]:
    """Each method against the best baseline of its cell (ratio and layer), for every metric with item scores.

    A row holds the difference, its interval, and whether the method wins, loses or neither.
    """
    rows, scores = by_row(cases), scores_by_row(cases, found)
    cells = list(dict.fromkeys(key[1:] for key in scores if key[0] in BASELINES))
    compared = []
    for metric in next(iter(scores.values())):
        for amount, layer in cells:
            baselines = [(name, amount, layer) for name in BASELINES] + [(DOWNSAMPLE, amount, "-")]
            there = [key for key in baselines if key in scores]  # not every model takes smaller images
            best = max(there, key=lambda key: scores[key][metric].mean())  # the first of equals
            for key in scores:
                if key[1:] == (amount, layer) and key not in baselines and key[0] != UNPRUNED:
                    row = {"metric": metric, **rows[key][0].columns, BEST: best[0]}
                    compared.append({**row, **difference(scores[key][metric], scores[best][metric])})
    return compared


def paired(cases: Sequence[Case], found: dict[str, Quality], against: Sequence[str]) -> list[dict]:
    """Each method against every row of the methods named, at the same ratio or share of FLOPs.

    The other row may lie in another layer: its own columns begin with `other`. For every metric with item
    scores a row holds what `compare` gives. Raises UsageError for a method without a row.
    """
    rows, scores = by_row(cases), scores_by_row(cases, found)
    refuse_unknown(cases, against)
    compared = []
    for metric in next(iter(scores.values())):
        for name in against:
            for key in scores:
                if key[0] in (UNPRUNED, DOWNSAMPLE, *BASELINES):
                    continue
                for other in scores:
                    if other[:2] == (name, key[1]) and other != key:
                        columns = rows[other][0].columns
                        row = {"metric": metric, **rows[key][0].columns, "other": columns.pop("method")}
                        row |= {f"other_{column}": value for column, value in columns.items()}
                        compared.append({**row, **difference(scores[key][metric], scores[other][metric])})
    return compared


def refuse_unknown(cases: Sequence[Case], against: Sequence[str]) -> None:
    """Raise UsageError for a method to compare with that has no row."""
    known = list(dict.fromkeys(case.method for case in cases if case.method != UNPRUNED))
    for name in against:
        if name not in known:
            raise UsageError(f"--against {name} is no method of this table; choose from {', '.join(known)}")


def scores_by_row(cases: Sequence[Case], found: dict[str, Quality]) -> dict[tuple, dict[str, np.ndarray]]:
    """The score of every item, the mean over the seeds, by row and metric."""
    return {key: mean_items([found[case.name] for case in same]) for key, same in by_row(cases).items()}


def difference(method: np.ndarray, baseline: np.ndarray) -> dict:
    """Mean difference with its interval; `outcome` is "wins" or "loses" where the interval excludes zero."""
    differences = np.asarray(method) - np.asarray(baseline)
    mean = low = high = float(differences.mean())
    if len(differences) > 1 and differences.std() > 0:
        interval = stats.ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
        low, high = float(interval.low), float(interval.high)
    outcome = "wins" if low > 0 else "loses" if high < 0 else "neither"
    return {"difference": mean, "low": low, "high": high, "num_items": len(differences), "outcome": outcome}
