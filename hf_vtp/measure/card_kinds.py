"""The kinds of results a model card is made from: their tables, headline numbers and what they speak of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .methods import COLUMNS as METHODS_COLUMNS
from .report import FLOOR_COLUMNS, VISION_COLUMNS, Column, number
from .table_vlm import where
from .variants import UNPATCHED

Metric = tuple[str, str, str]  # the row's key, the metric's type on the Hub, and its name

TASKS = {  # by family: the Hub's task, the class a user loads, and the benchmark that completes a card
    "clip": ("zero-shot-image-classification", "CLIPModel", "bench_clip.py"),
    "llava": ("image-text-to-text", "AutoModelForImageTextToText", "bench_llava.py"),
    "qwen2_5_vl": ("image-text-to-text", "AutoModelForImageTextToText", "bench_qwen2_5_vl.py"),
}


@dataclass(frozen=True)
class Kind:
    """One kind of result. `model`: what was measured, by the result, in words."""

    family: str
    heading: str
    columns: tuple[Column, ...]
    metrics: tuple[Metric, ...]
    dataset: Callable[[dict], tuple[str, str]]  # type and name, as the Hub's model-index wants them
    model: Callable[[dict], str]
    note: str = ""


def keep(row: dict) -> str:
    """The share or the number of tokens that a row leaves."""
    ratio = row.get("keep_ratio")
    return f"{row['kept_tokens']} tokens" if ratio is None else f"keep {ratio:g}"


def what(row: dict) -> str:
    """A row in words."""
    place = ", after the tower" if row.get("layer") == "output" else ""
    return UNPATCHED if row["method"] == UNPATCHED else f"{row['method']}, {keep(row)}{place}"


def _benchmarked(result: dict) -> str:
    weights = "its trained weights" if result["weights"] == "pretrained" else "random weights"
    return f"`{result['model']}` with {weights}"


def _inputs(result: dict) -> tuple[str, str]:
    machine, images = result["environment"], result.get("images", "random pixels")
    cores = "" if machine["cuda"] else f", {machine['threads']} threads"
    where = f"{machine['device_name']}{cores}, {result['dtype']}, {result['weights']} weights"
    return "speed", f"speed of {result['model']} on {images} ({where})"


SPEED = "Random weights show speed and say nothing about quality."
KEEP: Column = ("keep", lambda row: "" if row["keep_ratio"] is None else f"{row['keep_ratio']:g}")
TOKENS: Column = ("tokens", lambda row: f"{row['kept_tokens']}/{row['total_tokens']}")
METHOD: Column = ("method", lambda row: row["method"])
VLM_COLUMNS: tuple[Column, ...] = (
    ("batch", lambda row: str(row["batch_size"])),
    ("image", lambda row: row["image_size"]),
    METHOD,
    KEEP,
    ("layer", where),
    TOKENS,
    ("tower ms", number("tower_ms", 1)),
    ("prefill ms", number("prefill_ms", 1)),
    ("first token ms", number("ttft_p50_ms", 1)),
    ("IQR ms", number("ttft_iqr_ms", 1)),
    ("speed-up", number("ttft_speedup", 2)),
    ("by FLOPs", number("ttft_flop_ratio", 2)),
    ("last token ms", number("e2e_p50_ms", 1)),
    ("its speed-up", number("e2e_speedup", 2)),
    ("decode tok/s", number("decode_tokens_per_s", 1)),
    ("KV MiB", lambda row: f"{row['kv_cache_bytes'] / 2**20:.1f}"),
    ("peak MiB", number("peak_memory_mib", 0)),
    *FLOOR_COLUMNS,
)
CLIP_COLUMNS: tuple[Column, ...] = (
    METHOD,
    KEEP,
    TOKENS,
    ("accuracy", number("accuracy", 3)),
    ("cosine mean", number("cosine_mean", 4)),
    ("cosine min", number("cosine_min", 4)),
    ("cosine p5", number("cosine_p5", 4)),
)
LLAVA_COLUMNS: tuple[Column, ...] = (
    METHOD,
    ("layer", lambda row: "" if row["layer"] == "-" else row["layer"]),
    ("visual tokens", lambda row: str(row["kept_tokens"])),
    ("accuracy", number("accuracy", 3)),
)
GENERATES = (
    ("ttft_speedup", "speedup", "speed-up to the first token"),
    ("e2e_speedup", "speedup", "speed-up to the last token"),
)
SMALL = "Quality on a small trained {}, not on this model"

KINDS = {  # by a result's "benchmark" or "evaluation"
    "clip": Kind(
        "clip",
        "Speed",
        VISION_COLUMNS,
        (("speedup", "speedup", "speed-up"), ("cosine_mean", "cosine", "mean cosine with the unpruned")),
        _inputs,
        _benchmarked,
        SPEED,
    ),
    "llava": Kind("llava", "Speed", VLM_COLUMNS, GENERATES, _inputs, _benchmarked, SPEED),
    "qwen2_5_vl": Kind("qwen2_5_vl", "Speed", VLM_COLUMNS, GENERATES, _inputs, _benchmarked, SPEED),
    "methods": Kind(
        "clip",
        "What each method costs by itself",
        METHODS_COLUMNS,
        (),
        _inputs,
        lambda result: result["model"],
        SPEED,
    ),
    "clip_cifar10": Kind(
        "clip",
        SMALL.format("CLIP"),
        CLIP_COLUMNS,
        (("accuracy", "accuracy", "accuracy"), ("cosine_mean", "cosine", "mean cosine with the unpruned")),
        lambda result: ("cifar10", f"{result['num_images']} CIFAR-10 test images, a small trained CLIP"),
        lambda result: "a CLIP of 4 vision layers and 64 patch tokens that knows the ten classes of CIFAR-10",
        "What it says about the large model is for you to measure.",
    ),
    "llava_cifar10": Kind(
        "llava",
        SMALL.format("LLaVA"),
        LLAVA_COLUMNS,
        (("accuracy", "accuracy", "accuracy"),),
        lambda result: ("cifar10", f"{result['num_images']} CIFAR-10 test images, a small trained LLaVA"),
        lambda result: "a small LLaVA with 64 visual tokens, trained to name the class of a CIFAR-10 image",
        "What it says about the large model is for you to measure.",
    ),
}
