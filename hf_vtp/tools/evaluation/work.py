"""The cost of every case: FLOPs and time of one batch, in rounds in which every case has its turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from ..bench.flops import count_flops, countable
from ..bench.timing import interleave, summary, synchronizer
from ..cases import prune
from .cases import Case
from .rows import by_row

WARMUP = 1
Call = Callable[[Case], object]  # runs one batch through the model as it is now


def measure_work(
    model: nn.Module,
    cases: Sequence[Case],
    counted: Call,
    timed: Call,
    size: int,
    unit: str,
    rounds: int,
    seed: int,
) -> dict[tuple, dict]:
    """GFLOPs an item of `counted` and items a second of `timed`, with their ratios, by row of the table.

    Both run a batch of `size` items, which a report calls `unit`. Of cases that differ in their seed one is
    measured.
    """
    chosen = {key: same[0] for key, same in by_row(cases).items()}
    flops, calls = {}, {}
    for key, case in chosen.items():
        with countable(prune(model, case.config)):
            flops[key] = count_flops(partial(counted, case)) / 1e9 / size
        calls[key] = partial(_prepare, model, case, timed)
    seconds = interleave(
        calls, rounds=rounds, warmup=WARMUP, seed=seed, synchronize=synchronizer(model.device)
    )
    prune(model, None)
    latency = {key: summary(times) for key, times in seconds.items()}
    median = {key: times["latency_p50_ms"] for key, times in latency.items()}
    unpruned = next(iter(chosen))
    return {
        key: {
            f"gflop_per_{unit}": flops[key],
            "flop_ratio": flops[unpruned] / flops[key],
            f"{unit}s_per_s": size * 1e3 / median[key],
            "speedup": median[unpruned] / median[key],
            "latency_spread": latency[key]["latency_iqr_ms"] / median[key],
        }
        for key in chosen
    }


def _prepare(model: nn.Module, case: Case, timed: Call) -> Callable[[], object]:
    prune(model, case.config)
    return partial(timed, case)
