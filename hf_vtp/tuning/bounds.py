"""Bounds of a mean over few images; each is one-sided and holds with the confidence given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, log, sqrt

import numpy as np

# scipy is imported where it is used: `import hf_vtp.tuning` works without it, and says what is missing later

Bounds = Callable[[Sequence[float], float, int], tuple[float, float]]


def mean_bounds(values: Sequence[float], confidence: float, num: int) -> tuple[float, float]:
    """Bounds of the mean of `num` values up to 1 that scatter as these do, by Student's t."""
    from scipy import stats

    values = np.asarray(values, dtype=float)
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    half = float(stats.t.ppf(confidence, max(1, len(values) - 1)) * deviation / sqrt(num))
    return float(values.mean()) - half, min(1.0, float(values.mean()) + half)


def share_bounds(values: Sequence[float], confidence: float, num: int) -> tuple[float, float]:
    """Bounds of a share if `num` trials succeed as often as these (0 or 1 each), by Clopper and Pearson."""
    from scipy import stats

    hits = round(float(np.mean(values)) * num)
    sides = [
        stats.binomtest(hits, num, alternative=side).proportion_ci(confidence) for side in ("greater", "less")
    ]
    return float(sides[0].low), float(sides[1].high)


def fewest(share: float, confidence: float) -> int:
    """The fewest trials that show a share is reached, if all of them succeed."""
    return ceil(log(1 - confidence) / log(share))
