"""The kinds of results that model cards are made from: their tables, headline numbers and subjects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as ANSWERING,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES as ZERO_SHOT,
)

from ...families.table import list_families
from ..bench.methods import COLUMNS as METHODS_COLUMNS
from ..bench.report import FLOOR_COLUMNS, VISION_COLUMNS, Column, measured, number
from ..bench.table_vlm import where
from ..bench.variants import UNPATCHED

Metric = tuple[str, str, str]  # the row's key, the metric's type on the Hub, and its name


@dataclass(frozen=True)
class Task:
    """The use of a family: the Hub's name of it, the class a user loads, and the command that measures it."""

    name: str
    loader: str
    benchmark: str


def task_of(family: str) -> Task:
    """The task of a family, which is the model_type of its models."""
    if family in ANSWERING:
        return Task("image-text-to-text", "AutoModelForImageTextToText", "bench-vlm")
    if family in ZERO_SHOT:
        return Task("zero-shot-image-classification", ZERO_SHOT[family], "bench-clip")
    if reads_texts(family):
        return Task("zero-shot-image-classification", "AutoModel", "bench-clip")
    return Task("image-feature-extraction", "AutoModel", "bench-clip")


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Attributes:
        family: of the models measured, where the result itself does not say.
        model: the model that was measured, in words, by the result.
    """

    family: str
    heading: str
    columns: tuple[Column, ...]
    metrics: tuple[Metric, ...]
    dataset: Callable[[dict], tuple[str, str]]  # type and name, as the Hub's model-index wants them
    model: Callable[[dict], str]
    note: str = ""


def keep(row: dict) -> str:
    """The share or the number of tokens that a row keeps."""
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
    ("agreement with the unpruned", measured("agreement", 4)),
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
    ("cider", "cider", "CIDEr-D"),
)
AGREEMENT = ("agreement with the unpruned", measured("agreement", 4))
VLM_QUALITY: tuple[Column, ...] = (
    METHOD,
    KEEP,
    LAYER,
    TOKENS,
    *((name, measured(key, 4)) for key, _, name in ANSWERS),
    AGREEMENT,
    *COST,
)
GENERATES = (
    ("ttft_speedup", "speedup", "speed-up to the first token"),
    ("e2e_speedup", "speedup", "speed-up to the last token"),
)
ANSWERED = Kind("", "Speed", VLM_COLUMNS, GENERATES, _inputs, _benchmarked, SPEED)
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
    "eval_vlm": Kind("", "Quality", VLM_QUALITY, ANSWERS, _items, _benchmarked),
}


def kind_of(result: dict) -> Kind:
    """The kind of a result; raises KeyError for one of none.

    A benchmark of a model that answers names the model's family.
    """
    if "benchmark" not in result:
        return KINDS[f"eval_{result['evaluation']}"]
    name = result["benchmark"]
    return ANSWERED if name in ANSWERING else KINDS[name]


def family_of(result: dict) -> str:
    """The family of the model that a result is of; of a tower, the one that compares it with texts."""
    name = result.get("model_type") or result.get("benchmark")
    if name in ANSWERING:
        return name
    families = list_families()
    if "model_type" not in result or name not in families:
        return kind_of(result).family
    around = [root for root, row in families.items() if row["tower"] == families[name]["tower"]]
    return name if reads_texts(name) else next(filter(reads_texts, around), name)


def reads_texts(family: str) -> bool:
    """Whether models of a family have a vision tower beside one for texts."""
    row = list_families().get(family)
    return row is not None and row["kind"] == "vision" and row["tower"] != family
