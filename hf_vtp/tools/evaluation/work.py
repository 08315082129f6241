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
    measured. Without rounds nothing is timed.
    """
    chosen = {key: same[0] for key, same in by_row(cases).items()}
    flops = {}
    for key, case in chosen.items():
        with countable(prune(model, case.config)):
            flops[key] = count_flops(partial(counted, case)) / 1e9 / size
    unpruned = next(iter(chosen))
    timed_rows = _speeds(model, chosen, timed, size, unit, rounds, seed)
    return {
        key: {
            f"gflop_per_{unit}": flops[key],
            "flop_ratio": flops[unpruned] / flops[key],
            **timed_rows[key],
        }
        for key in chosen
    }


def _speeds(
    model: nn.Module, chosen: dict[tuple, Case], timed: Call, size: int, unit: str, rounds: int, seed: int
) -> dict[tuple, dict]:
    """Items a second of every row, None where no round is timed."""
    if not rounds:
        prune(model, None)
        nothing = dict.fromkeys((f"{unit}s_per_s", "speedup", "latency_spread"))
        return dict.fromkeys(chosen, nothing)
    calls = {key: partial(_prepare, model, case, timed) for key, case in chosen.items()}
    seconds = interleave(
        calls, rounds=rounds, warmup=WARMUP, seed=seed, synchronize=synchronizer(model.device)
    )
    prune(model, None)
    latency = {key: summary(times) for key, times in seconds.items()}
    median = {key: times["latency_p50_ms"] for key, times in latency.items()}
    unpruned = next(iter(chosen))
    return {
        key: {
            f"{unit}s_per_s": size * 1e3 / median[key],
            "speedup": median[unpruned] / median[key],
            "latency_spread": latency[key]["latency_iqr_ms"] / median[key],
        }
        for key in chosen
    }


def _prepare(model: nn.Module, case: Case, timed: Call) -> Callable[[], object]:
    prune(model, case.config)
    return partial(timed, case)
