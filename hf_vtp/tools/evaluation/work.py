"""What a case costs: FLOPs and time of one batch, in rounds where every case has its turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from ...apply import apply_vtp, remove_vtp
from ..bench.flops import count_flops, countable
from ..bench.timing import interleave, summary, synchronizer
from .cases import Case
from .rows import by_row

WARMUP = 1
Call = Callable[[Case], object]  # runs one batch through the model as it is now


def measure_work(
    model: nn.Module,
    cases: Sequence[Case],
    first: Call,
    whole: Call,
    size: int,
    unit: str,
    rounds: int,
    seed: int,
) -> dict[tuple, dict]:
    """By row of the table: GFLOPs an item of `first`, and items a second of `whole`, with their ratios.

    `size` items are in the batch that both run; `unit` is what a report calls them. Of cases that differ in
    their seed one is measured.
    """
    chosen = {key: same[0] for key, same in by_row(cases).items()}
    flops, calls = {}, {}
    for key, case in chosen.items():
        with countable(ready(model, case)):
            flops[key] = count_flops(partial(first, case)) / 1e9 / size
        calls[key] = partial(_ready_call, model, case, whole)
    seconds = interleave(
        calls, rounds=rounds, warmup=WARMUP, seed=seed, synchronize=synchronizer(model.device)
    )
    remove_vtp(model)
    told = {key: summary(times) for key, times in seconds.items()}
    spent = {key: times["latency_p50_ms"] for key, times in told.items()}
    baseline = next(iter(chosen))
    return {
        key: {
            f"gflop_per_{unit}": flops[key],
            "flop_ratio": flops[baseline] / flops[key],
            f"{unit}s_per_s": size * 1e3 / spent[key],
            "speedup": spent[baseline] / spent[key],
            "latency_spread": told[key]["latency_iqr_ms"] / spent[key],
        }
        for key in chosen
    }


def ready(model: nn.Module, case: Case) -> nn.Module:
    """The model pruned as the case says, until the next."""
    return remove_vtp(model) if case.config is None else apply_vtp(model, case.config)


def _ready_call(model: nn.Module, case: Case, whole: Call) -> Callable[[], object]:
    ready(model, case)
    return partial(whole, case)
