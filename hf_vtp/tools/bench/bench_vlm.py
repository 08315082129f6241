"""The measurements behind a table of vision-language models: a row per case, batch and image size."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...apply import vtp_stats
from ...families.table import list_families
from ...stats import VTPStats
from .bench import MIB
from .floors import bytes_moved, floors
from .flops import MISSING, countable
from .memory import own_bytes, peak_bytes
from .parts import inside
from .timing import interleave, ratio_quartiles, summary, synchronizer
from .variants import Case, Variants
from .vlm import cache_bytes, generate, parts

PARTS = ("tower", "projector", "prefill", "other")
WHOLES = ("ttft", "e2e")  # what speed-ups are given of, beside the tower's
WARMUP = 1
PARTS_ROUNDS = 2  # counted, after one that is not


def calls_per_case(rounds: int) -> int:
    """How often `progress` is called for each case of one batch and image size."""
    return 3 + (1 + PARTS_ROUNDS) + len(WHOLES) * (WARMUP + rounds)


def measure_flops(variants: Variants, inputs: dict, new_tokens: int, progress: Callable) -> dict[str, dict]:
    """GFLOPs of each part, until the first token, and until the last, by case; `inputs` are one prompt."""
    rows = {}
    for case in variants.cases:
        with countable(variants.eager(case)) as model:
            counter = FlopCounterMode(display=False, custom_mapping=MISSING)
            with counter, inside(parts(model), counter.get_total_flops) as spent:
                generate(model, inputs, new_tokens)
        whole = counter.get_total_flops()
        steps = sum(sum(spent.get(name, [])[1:]) for name in ("language", "head"))
        row = {**of_parts(spent, whole - steps), "ttft": whole - steps, "e2e": whole}
        rows[case.name] = {f"{name}_gflop": None if x is None else x / 1e9 for name, x in row.items()}
        progress()
    baseline = rows[variants.cases[0].name]
    for row in rows.values():
        for name in ("tower", *WHOLES):
            row[f"{name}_flop_ratio"] = ratio(baseline[f"{name}_gflop"], row[f"{name}_gflop"])
    return rows


def ratio(baseline: float | None, value: float | None) -> float | None:
    """How many times less; None for a part that a model does not have apart."""
    return baseline / value if baseline and value else None


def of_parts(spent: dict[str, list[float]], until_first_token: float) -> dict[str, float | None]:
    """Tower, projector, prefill (language model with its head, first run), and all else until then.

    None for a part that the model does not have apart; it is in all else then.
    """
    runs = {name: found for name, found in spent.items() if found}
    row = {name: sum(runs[name]) if name in runs else None for name in ("tower", "projector")}
    row["prefill"] = runs["language"][0] + runs.get("head", [0])[0] if "language" in runs else None
    return {**row, "other": until_first_token - sum(value or 0 for value in row.values())}


def measure_parts(
    variants: Variants, inputs: dict[str, Tensor], seed: int, progress: Callable
) -> dict[str, dict]:
    """Milliseconds of each part until the first token, with what is kept and cached by then, by case.

    In rounds of their own: to wait for the device at each part's ends would slow down the whole.
    """
    synchronize = synchronizer(variants.model.device)

    def clock() -> float:
        synchronize()
        return time.perf_counter()

    rows, times = {}, {case.name: [] for case in variants.cases}

    def ready(case: Case) -> Callable[[], None]:
        model = variants.eager(case)

        def call() -> None:
            with inside(parts(model), clock) as spent:
                start = clock()
                cache = generate(model, inputs, 1)
                whole = clock() - start
            times[case.name].append(of_parts(spent, whole))
            stats, prompts = None if case.config is None else vtp_stats(model), len(inputs["input_ids"])
            rows[case.name] = {
                "layers": stats and layers(model, stats),
                "kept_tokens": stats and a_prompt(stats.num_kept, prompts),
                "total_tokens": stats and a_prompt(stats.num_tokens, prompts),
                "prompt_tokens": cache.get_seq_length(),
                "kv_cache_bytes": cache_bytes(cache),
            }

        return call

    calls = {case.name: partial(ready, case) for case in variants.cases}
    interleave(calls, rounds=PARTS_ROUNDS, warmup=1, seed=seed, progress=progress)
    for name, row in rows.items():
        for part in PARTS:
            seconds = [t[part] for t in times[name][1:]]
            row[f"{part}_ms"] = None if None in seconds else float(np.median(seconds)) * 1e3
    whole = rows[variants.cases[0].name]
    tokens = rows[variants.cases[-1].name]["total_tokens"]
    whole.update(kept_tokens=tokens, total_tokens=tokens)
    for row in rows.values():
        row["tower_speedup"] = ratio(whole["tower_ms"], row["tower_ms"])
    return rows


def layers(model: nn.Module, stats: VTPStats) -> list[int]:
    """After which layers of the tower tokens leave; none where they leave after the features."""
    own = list_families().get(model.config.model_type, {}).get("tower")
    return [stage.layer for stage in stats.stages] if own else []


def a_prompt(counts: list[int], prompts: int) -> float | int:
    """Image tokens of a prompt on average, an int where all have as many."""
    mean = sum(counts) / prompts
    return int(mean) if mean.is_integer() else round(mean, 1)


def measure_speed(
    variants: Variants, inputs: dict, new_tokens: int, *, rounds: int, seed: int, progress: Callable
) -> dict[str, dict]:
    """Time to the first and to the last token, their speed-ups, decoding speed and peak memory, by case."""
    device = variants.model.device
    counts = {"ttft": 1, "e2e": new_tokens}

    def ready(case: Case, what: str) -> Callable:
        return partial(generate, variants.eager(case), inputs, counts[what])

    calls = {(case.name, what): partial(ready, case, what) for case in variants.cases for what in WHOLES}
    options = {"synchronize": synchronizer(device), "progress": progress}
    seconds = interleave(calls, rounds=rounds, warmup=WARMUP, seed=seed, **options)
    rows = {}
    for case in variants.cases:
        row = rows[case.name] = {}
        for what in WHOLES:
            own, baseline = seconds[case.name, what], seconds[variants.cases[0].name, what]
            times = summary(own)
            row |= {f"{what}_{key.removeprefix('latency_')}": value for key, value in times.items()}
            row[f"{what}_speedup"] = summary(baseline)["latency_p50_ms"] / times["latency_p50_ms"]
            row[f"{what}_speedup_quartiles"] = ratio_quartiles(baseline, own)
        row["decode_tokens_per_s"] = decoding_speed(row, len(inputs["input_ids"]) * (new_tokens - 1))
        rise = peak_bytes(ready(case, "e2e"), device)
        row["peak_memory_mib"] = (own_bytes(variants.model, *inputs.values()) + rise) / MIB
        row["generate_memory_mib"] = rise / MIB
        progress()
    return rows


def decoding_speed(row: dict, tokens: int) -> float | None:
    """Tokens a second after the first, from the two times; None where these differ by no more than noise."""
    milliseconds = row["e2e_p50_ms"] - row["ttft_p50_ms"]
    noise = max(row["e2e_iqr_ms"], row["ttft_iqr_ms"])
    return tokens / milliseconds * 1e3 if milliseconds > noise else None


def measure_moved(variants: Variants, inputs: dict, progress: Callable) -> dict[str, int]:
    """Bytes that are moved until the first token, by case."""
    moved = {}
    for case in variants.cases:
        with countable(variants.eager(case)) as model:
            moved[case.name] = bytes_moved(partial(generate, model, inputs, 1))
        progress()
    return moved


def join(
    batch_size: int,
    image_size: str,
    cases: list[Case],
    peak: dict,
    moved: dict[str, int],
    *measured: dict[str, dict],
) -> list[dict]:
    """The rows of one batch and image size; their floors are those of the time to the first token."""
    rows = []
    for case in cases:
        row = {
            "batch_size": batch_size,
            "image_size": image_size,
            "method": case.method,
            "keep_ratio": case.keep_ratio,
            "layer": None if case.config is None else case.config.layer,
        }
        for part in measured:
            row |= part[case.name]
        row |= floors(row["ttft_gflop"] * 1e9 * batch_size, moved[case.name], peak, row["ttft_p50_ms"])
        rows.append(row)
    return rows
