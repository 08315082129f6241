"""The kinds of results a model card is made from: their tables, headline numbers and what they speak of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..bench.methods import COLUMNS as METHODS_COLUMNS
from ..bench.report import FLOOR_COLUMNS, VISION_COLUMNS, Column, measured, number
from ..bench.table_vlm import where
from ..bench.variants import UNPATCHED

Metric = tuple[str, str, str]  # the row's key, the metric's type on the Hub, and its name

TASKS = {  # by family: the Hub's task, the class a user loads, and the command that completes a card
    "clip": ("zero-shot-image-classification", "CLIPModel", "bench-clip"),
    "llava": ("image-text-to-text", "AutoModelForImageTextToText", "bench-vlm"),
    "qwen2_5_vl": ("image-text-to-text", "AutoModelForImageTextToText", "bench-vlm"),
}
FAMILY_OF = {"qwen2_vl": "qwen2_5_vl", **{family: family for family in TASKS}}  # by model type


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


def _items(result: dict) -> tuple[str, str]:
    return "quality", f"{result['num_items']} items of {result['data']}, answered by {result['model']}"


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
LAYER: Column = ("layer", lambda row: "" if row["layer"] == "-" else row["layer"])
COST: tuple[Column, ...] = (("FLOP ratio", measured("flop_ratio", 2)), ("speed-up", measured("speedup", 2)))
CLIP_COLUMNS: tuple[Column, ...] = (
    METHOD,
    KEEP,
    LAYER,
    TOKENS,
    ("top-1", measured("top_1", 4)),
    ("image-to-text recall@1", measured("i2t_recall_at_1", 4)),
    ("text-to-image recall@1", measured("t2i_recall_at_1", 4)),
    ("cosine mean", measured("cosine_mean", 4)),
    ("cosine p5", measured("cosine_p5", 4)),
    *COST,
)
ANSWERS = (
    ("exact_match", "accuracy", "exact match"),
    ("vqa_accuracy", "accuracy", "VQA accuracy"),
    ("pope_accuracy", "accuracy", "accuracy of yes and no"),
    ("anls", "anls", "ANLS"),
)
VLM_QUALITY: tuple[Column, ...] = (
    METHOD,
    KEEP,
    LAYER,
    TOKENS,
    *((name, measured(key, 4)) for key, _, name in ANSWERS),
    *COST,
)
GENERATES = (
    ("ttft_speedup", "speedup", "speed-up to the first token"),
    ("e2e_speedup", "speedup", "speed-up to the last token"),
)
KINDS = {  # by a result's "benchmark", or "eval_" and its "evaluation"
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
    "eval_clip": Kind(
        "clip",
        "Quality",
        CLIP_COLUMNS,
        (
            ("top_1", "accuracy", "top-1"),
            ("t2i_recall_at_1", "recall", "text-to-image recall@1"),
            ("cosine_mean", "cosine", "mean cosine with the unpruned"),
        ),
        _items,
        _benchmarked,
    ),
    "eval_vlm": Kind("llava", "Quality", VLM_QUALITY, ANSWERS, _items, _benchmarked),
}
