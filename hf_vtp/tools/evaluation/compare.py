"""Methods against the best floor of their cell, item by item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from .cases import DOWNSAMPLE, FLOORS, UNPRUNED, Case
from .rows import Quality, by_row, mean_items

CONFIDENCE = 0.95
HOW = (
    "95 % intervals of Student's t for the mean of the items' paired differences (scipy.stats.ttest_1samp); "
    "of random methods an item's score is the mean over the seeds. The best floor is chosen by these very "
    "items, which favours the floor"
)


def compare(cases: Sequence[Case], found: dict[str, Quality]) -> list[dict]:
    """For every metric with scores of items, and every cell (ratio and layer), each method against the floor
    that is best there: difference, interval, and whether it wins, loses or neither."""
    scores = {key: mean_items([found[c.name] for c in same]) for key, same in by_row(cases).items()}
    names = list(next(iter(scores.values())))
    cells = list(dict.fromkeys((ratio, layer) for m, ratio, layer in scores if m in FLOORS))
    compared = []
    for metric in names:
        for ratio, layer in cells:
            floors = [(floor, ratio, layer) for floor in FLOORS] + [(DOWNSAMPLE, ratio, "-")]
            best = max(floors, key=lambda key: scores[key][metric].mean())  # the first of equals
            for key in scores:
                if key[1:] == (ratio, layer) and key not in floors and key[0] != UNPRUNED:
                    told = difference(scores[key][metric], scores[best][metric])
                    row = {"metric": metric, "keep_ratio": ratio, "layer": layer, "method": key[0]}
                    compared.append({**row, "best_floor": best[0], **told})
    return compared


def difference(method: np.ndarray, floor: np.ndarray) -> dict:
    """Mean difference with its interval; `outcome` is "wins" or "loses" where the interval excludes zero."""
    apart = np.asarray(method) - np.asarray(floor)
    mean = low = high = float(apart.mean())
    if len(apart) > 1 and apart.std() > 0:
        interval = stats.ttest_1samp(apart, 0).confidence_interval(CONFIDENCE)
        low, high = float(interval.low), float(interval.high)
    outcome = "wins" if low > 0 else "loses" if high < 0 else "neither"
    return {"difference": mean, "low": low, "high": high, "num_items": len(apart), "outcome": outcome}
