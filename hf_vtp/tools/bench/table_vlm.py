"""How the results of a vision-language benchmark are shown as a table."""

from __future__ import annotations

from .report import FLOOR_COLUMNS, Column, floor_note, number
from .variants import UNPATCHED

GROUPS = ("image_size", "batch_size")


def where(row: dict) -> str:
    """After which layer of the tower tokens leave."""
    if row["method"] == UNPATCHED:
        return "-"
    if not row["layers"]:
        return "features"
    layers = ",".join(str(layer) for layer in row["layers"])
    return f"{row['layer']}={layers}" if row["layer"] == "output" else layers


COLUMNS: tuple[Column, ...] = (
    ("batch", lambda row: str(row["batch_size"])),
    ("image", lambda row: row["image_size"]),
    ("method", lambda row: row["method"]),
    ("keep", lambda row: "-" if row["keep_ratio"] is None else str(row["keep_ratio"])),
    ("layer", where),
    ("tokens", lambda row: f"{row['kept_tokens']}/{row['total_tokens']}"),
    ("tower\nms", number("tower_ms", 1)),
    ("speed-\nup", number("tower_speedup", 2)),
    ("FLOP\nbound", number("tower_flop_ratio", 2)),
    ("proj.\nms", number("projector_ms", 1)),
    ("prefill\nms", number("prefill_ms", 1)),
    ("TTFT\nms", number("ttft_p50_ms", 1)),
    ("IQR\nms", number("ttft_iqr_ms", 1)),
    ("speed-\nup", number("ttft_speedup", 2)),
    ("FLOP\nbound", number("ttft_flop_ratio", 2)),
    ("decode\ntok/s", number("decode_tokens_per_s", 1)),
    ("all N\nms", number("e2e_p50_ms", 1)),
    ("IQR\nms", number("e2e_iqr_ms", 1)),
    ("speed-\nup", number("e2e_speedup", 2)),
    ("FLOP\nbound", number("e2e_flop_ratio", 2)),
    ("KV\nMiB", lambda row: f"{row['kv_cache_bytes'] / 2**20:.1f}"),
    ("peak\nMiB", number("peak_memory_mib", 0)),
    *FLOOR_COLUMNS,
)


def title(result: dict) -> str:
    """Model and machine, two lines."""
    machine = result["environment"]
    cores = "" if machine["cuda"] else f", {machine['threads']} threads"
    what = f"{result['model']} ({result['weights']} weights), {result['text_tokens']} text tokens a prompt"
    return f"{what}\n{machine['device_name']}{cores}, {result['dtype']}, {result['attn_implementation']}"


def notes(result: dict) -> list[str]:
    """What the columns mean."""
    return [
        f"{result['rounds']} interleaved rounds, seed {result['seed']}; medians, of the whole batch. TTFT: "
        f"generate of one token, from pixels on. N = {result['new_tokens']} new tokens.",
        "Tower, projector (Qwen: merger) and prefill (language model and its head) are timed in rounds of "
        "their own, waiting for the device at each of their ends; n/a where a model has none apart.",
        "FLOP bound: the speed-up if time went with FLOPs (decoding does not: it reads weights); FLOPs "
        f"{result['flops']}.",
        f"KV: the cache of the whole batch's prompts. Peak: {result['memory']}.",
        f"{floor_note(result['peaks'])} Of the time to the first token.",
    ]
