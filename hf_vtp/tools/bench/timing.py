"""Wall-clock times of several variants, taken in turns so that drift of the machine meets all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch

Call = Callable[[], object]


def synchronizer(device: torch.device) -> Call:
    """A function that waits until the device has done what it was given."""
    waits = {"cuda": partial(torch.cuda.synchronize, device), "mps": torch.mps.synchronize}
    return waits.get(device.type, _nothing)


def interleave(
    cases: Mapping[str, Callable[[], Call]],
    *,
    rounds: int,
    warmup: int = 2,
    seed: int = 0,
    synchronize: Call = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    progress: Call = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of every case in every round: `{name: [seconds] * rounds}`.

    Each round runs every case once, in an order shuffled by `seed`. `cases[name]()` makes it ready, off the
    clock, and returns the call to time. The first `warmup` rounds are not counted.
    """
    order = list(cases)
    shuffle = random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(warmup + rounds):
        shuffle(order)
        for name in order:
            call = cases[name]()
            synchronize()
            start = clock()
            call()
            synchronize()
            stop = clock()
            if number >= warmup:
                seconds[name].append(stop - start)
            progress()
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, 95th percentile, interquartile range and minimum, in milliseconds."""
    low, p25, p50, p75, p95 = np.percentile(np.array(seconds) * 1e3, [0, 25, 50, 75, 95]).tolist()
    return {
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "latency_iqr_ms": p75 - p25,
        "latency_min_ms": low,
    }


def ratio_quartiles(baseline: list[float], seconds: list[float]) -> list[float]:
    """First and third quartile of baseline / variant, taken round by round."""
    return np.percentile(np.array(baseline) / np.array(seconds), [25, 75]).tolist()


def _nothing() -> None:
    pass
