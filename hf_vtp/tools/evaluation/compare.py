"""Methods against the best baseline of their cell, item by item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

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
    scores = {key: mean_items([found[c.name] for c in same]) for key, same in by_row(cases).items()}
    names = list(next(iter(scores.values())))
    cells = list(dict.fromkeys((ratio, layer) for method, ratio, layer in scores if method in BASELINES))
    compared = []
    for metric in names:
        for ratio, layer in cells:
            baselines = [(name, ratio, layer) for name in BASELINES] + [(DOWNSAMPLE, ratio, "-")]
            there = [key for key in baselines if key in scores]  # not every model takes smaller images
            best = max(there, key=lambda key: scores[key][metric].mean())  # the first of equals
            for key in scores:
                if key[1:] == (ratio, layer) and key not in baselines and key[0] != UNPRUNED:
                    row = {"metric": metric, "keep_ratio": ratio, "layer": layer, "method": key[0]}
                    compared.append(
                        {**row, BEST: best[0], **difference(scores[key][metric], scores[best][metric])}
                    )
    return compared


def difference(method: np.ndarray, baseline: np.ndarray) -> dict:
    """Mean difference with its interval; `outcome` is "wins" or "loses" where the interval excludes zero."""
    differences = np.asarray(method) - np.asarray(baseline)
    mean = low = high = float(differences.mean())
    if len(differences) > 1 and differences.std() > 0:
        interval = stats.ttest_1samp(differences, 0).confidence_interval(CONFIDENCE)
        low, high = float(interval.low), float(interval.high)
    outcome = "wins" if low > 0 else "loses" if high < 0 else "neither"
    return {"difference": mean, "low": low, "high": high, "num_items": len(differences), "outcome": outcome}
