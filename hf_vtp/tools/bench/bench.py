"""The measurements behind a table of variants, one row per batch size and case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ...apply import vtp_stats
from .floors import bytes_moved, floors
from .flops import count_flops, countable
from .memory import own_bytes, peak_bytes
from .timing import interleave, ratio_quartiles, summary, synchronizer
from .variants import Case, Variants

MIB = 2**20
FEW = 100  # images; below it a 5th percentile says nothing
Inputs = dict[str, Tensor]  # of a batch of images
Forward = Callable[[Callable, Inputs], Tensor]  # (model, inputs) -> image embeddings [B, D]


def count(images: Inputs) -> int:
    """How many images a batch has."""
    return len(images["pixel_values"])


def on(device: torch.device, images: Inputs) -> Inputs:
    """A batch on a device."""
    return {name: x.to(device) for name, x in images.items()}


def measure_work(variants: Variants, forward: Forward, images: Inputs, progress: Callable) -> dict[str, dict]:
    """Tokens and FLOPs an image, by case. One image will do, but where counts follow the image and rows are
    padded to the longest: there both are means over a batch as it is timed."""
    rows = {}
    for case in variants.cases:
        with countable(variants.eager(case)) as model:
            flops = count_flops(partial(forward, model, images))
            rows[case.name] = {"gflop_per_image": flops / 1e9 / count(images), **_tokens(model, case)}
        progress()
    whole = rows[variants.cases[-1].name]["total_tokens"]
    unpatched = rows[variants.cases[0].name]
    unpatched.update(kept_tokens=whole, total_tokens=whole)
    return {
        name: {**row, "flop_ratio": unpatched["gflop_per_image"] / row["gflop_per_image"]}
        for name, row in rows.items()
    }


def _tokens(model: nn.Module, case: Case) -> dict:
    if case.config is None:
        return {"layers": None, "kept_tokens": None, "total_tokens": None}
    stats = vtp_stats(model)
    layers = [stage.layer for stage in stats.stages]
    kept = sum(stats.num_kept) / len(stats.num_kept)
    kept = int(kept) if kept.is_integer() else round(kept, 1)
    return {"layers": layers, "kept_tokens": kept, "total_tokens": stats.num_tokens[0]}


def measure_agreement(
    variants: Variants, forward: Forward, batches: Sequence[Inputs], device: torch.device, progress: Callable
) -> dict[str, dict]:
    """Cosine of every image's embedding with its unpruned one, by case; `batches` may lie on the CPU."""
    rows, reference = {}, None
    for case in variants.cases:
        model = variants.eager(case)
        embeddings = torch.cat([forward(model, on(device, batch)).double().cpu() for batch in batches])
        reference = embeddings if reference is None else reference
        rows[case.name] = agreement(embeddings, reference)
        progress()
    return rows


def agreement(embeddings: Tensor, reference: Tensor) -> dict[str, float | None]:
    """Cosine of the rows of two [n, D] tensors: mean, minimum and, from 100 rows on, 5th percentile."""
    cosine = torch.nn.functional.cosine_similarity(embeddings, reference, dim=-1).clamp(max=1).numpy()
    p5 = float(np.percentile(cosine, 5)) if len(cosine) >= FEW else None
    return {"cosine_mean": float(cosine.mean()), "cosine_min": float(cosine.min()), "cosine_p5": p5}


def measure_moved(variants: Variants, forward: Forward, batch: Inputs, progress: Callable) -> dict[str, int]:
    """Bytes that one eager forward moves, by case."""
    moved = {}
    for case in variants.cases:
        with countable(variants.eager(case)) as model:
            moved[case.name] = bytes_moved(partial(forward, model, batch))
        progress()
    return moved


NO_AGREEMENT = {"cosine_mean": None, "cosine_min": None, "cosine_p5": None}


def measure_speed(
    variants: Variants,
    forward: Forward,
    batch: Inputs,
    *,
    rounds: int,
    warmup: int,
    seed: int,
    progress: Callable,
) -> dict[str, dict]:
    """Latency, throughput, speed-up over the unpatched model and peak memory for one batch, by case."""
    device = batch["pixel_values"].device
    calls = {c.name: partial(_ready, variants, c, forward, batch) for c in variants.cases}
    seconds = interleave(
        calls,
        rounds=rounds,
        warmup=warmup,
        seed=seed,
        synchronize=synchronizer(device),
        progress=progress,
    )
    baseline = seconds[variants.cases[0].name]
    rows = {}
    for case in variants.cases:
        times = summary(seconds[case.name])
        rise = peak_bytes(calls[case.name](), device)
        rows[case.name] = {
            **times,
            "images_per_s": count(batch) * 1e3 / times["latency_p50_ms"],
            "speedup": summary(baseline)["latency_p50_ms"] / times["latency_p50_ms"],
            "speedup_quartiles": ratio_quartiles(baseline, seconds[case.name]),
            "peak_memory_mib": (own_bytes(variants.model, *batch.values()) + rise) / MIB,
            "forward_memory_mib": rise / MIB,
        }
        progress()
    return rows


def _ready(variants: Variants, case: Case, forward: Forward, batch: Inputs) -> Callable[[], Tensor]:
    return partial(forward, variants.timed(case), batch)


def join(
    batch_size: int, cases: list[Case], peak: dict, moved: dict[str, int], *parts: dict[str, dict]
) -> list[dict]:
    """The rows of one batch size, with what follows from more than one measurement."""
    rows = []
    for case in cases:
        row = {"batch_size": batch_size, "method": case.method, "keep_ratio": case.keep_ratio}
        for part in parts:
            row.update(part[case.name])
        row["efficiency"] = row["speedup"] / row["flop_ratio"]
        flops = row["gflop_per_image"] * 1e9 * batch_size
        row |= floors(flops, moved[case.name], peak, row["latency_p50_ms"])
        rows.append(row)
    return rows
