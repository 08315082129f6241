"""What a method costs by itself: scoring, selecting and merging of random tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from ...config import VTPConfig
from ...methods import list_methods
from ...methods.layers import default_layers
from ...methods.table import METHODS
from ...pruning.registry import OF_LAYERS
from ...pruning.stage import limit, needs, observe, prune, watched
from ...pruning.tokens import VisionTokens, num_keep
from .cli import UsageError
from .memory import peak_bytes
from .report import Column, number
from .timing import interleave, summary, synchronizer

HEADS, WIDTH, LAYERS, WORDS = 16, 1024, 24, 32  # of CLIP ViT-L/14; text tokens of a prompt
LANGUAGE_WIDTH = 4096  # of LLaVA-1.5-7B
TOWER = "tower"


COLUMNS: tuple[Column, ...] = (
    ("tokens", lambda row: str(row["num_tokens"])),
    ("method", lambda row: row["method"]),
    ("one stage\nms", number("latency_p50_ms", 2)),
    ("IQR\nms", number("latency_iqr_ms", 2)),
    ("scratch\nMiB/image", number("scratch_mib_per_image", 1)),
    ("tower\nms", number("tower_ms", 1)),
    ("one stage\n% of tower", lambda row: percent(row, 1)),
    ("stages", lambda row: str(row["stages"])),
    ("all stages\n% at most", lambda row: percent(row, row["stages"])),
    ("note", lambda row: f"at most {row['limit']} tokens" if row["limit"] else ""),
)


def percent(row: dict, times: int) -> str:
    share = row["share_of_tower"]
    return "n/a" if share is None else f"{100 * times * share:.1f}"


def grid_of(num_tokens: int) -> tuple[int, int, int]:
    """The grid of a square image; raises UsageError for another number of tokens."""
    side = round(num_tokens**0.5)
    if side * side != num_tokens:
        raise UsageError(f"--num-tokens must be squares such as 196, 576 or 1024, not {num_tokens}")
    return 1, side, side


def random_tokens(
    config: VTPConfig, num_tokens: int, batch: int, dtype: torch.dtype, device: torch.device, seed: int
) -> VisionTokens:
    """Normally distributed tokens of CLIP ViT-L/14's width in the middle of its tower, with a prompt."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    wanted = needs(config)
    heads = (batch, HEADS, 1 + num_tokens, WIDTH // HEADS)
    states = {"full_query": normal(*heads), "full_key": normal(*heads)} if wanted & OF_LAYERS else {}
    text = {}
    if "text" in wanted:
        valid = torch.ones(batch, WORDS, dtype=torch.bool, device=device)
        text = {"text": normal(batch, WORDS, LANGUAGE_WIDTH), "text_valid": valid}
    if wanted & {"text", "projected"}:
        text["project"] = projector(dtype, device)
    layer = LAYERS // 2
    tokens = VisionTokens(
        hidden_states=normal(batch, num_tokens, WIDTH),
        num_keep=num_keep(num_tokens, config.keep_ratio),
        target=num_keep(num_tokens, config.keep_ratio),
        share=config.keep_ratio,
        remaining=1,
        grid=grid_of(num_tokens),
        num_prefix_tokens=1,
        layer=layer,
        **states,
        full_value=normal(*heads) if "value" in wanted else None,
        **text,
    )
    return tokens


def projector(dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """A projector as large as LLaVA-1.5-7B's, with weights that nobody set."""
    widths = [(WIDTH, LANGUAGE_WIDTH), (LANGUAGE_WIDTH, LANGUAGE_WIDTH)]
    first, second = (torch.nn.Linear(*width, device=device, dtype=dtype) for width in widths)
    return torch.nn.Sequential(first, torch.nn.GELU(), second).requires_grad_(False)


def one_stage(tokens: VisionTokens, config: VTPConfig) -> None:
    """One stage's work, and that of the layers it watches: as many as there are for each of the stages."""
    layers = METHODS[config.method].layers
    at = layers(LAYERS) if callable(layers) else [tokens.layer]
    wanted = watched(config, at, LAYERS, 1)
    for _ in range(-(-len(wanted) // len(at))):
        tokens.seen[tokens.layer] = observe(tokens, next(iter(wanted.values())))
    prune(tokens, config)


def tower_layer(num_tokens: int, batch: int, dtype: torch.dtype, device: torch.device) -> Callable:
    """One layer of CLIP ViT-L/14 on so many tokens: its tower's forward is 24 of them."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=HEADS, attn_implementation="sdpa"
    )
    layer = CLIPEncoderLayer(config).to(device, dtype).eval()
    x = torch.randn(batch, 1 + num_tokens, WIDTH, device=device, dtype=dtype)
    return partial(layer, x, None)


@torch.inference_mode()
def measure(
    methods: list[str],
    num_tokens: int,
    keep_ratio: float,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> list[dict]:
    """One row for each method, in interleaved rounds with a tower's layer.

    Each method warms up in the call whose memory is measured, the tower's layer in one of its own.
    """
    torch.manual_seed(seed)
    layer = tower_layer(num_tokens, batch, dtype, device)
    layer()
    cases: dict[str, Callable] = {TOWER: lambda: layer}
    tokens, memory, refused = {}, {}, {}
    for name in methods:
        config = VTPConfig(method=name, keep_ratio=keep_ratio)
        most = limit(config)
        if most is not None and num_tokens > most:
            refused[name] = most
            continue
        tokens[name] = random_tokens(config, num_tokens, batch, dtype, device, seed)
        call = partial(one_stage, tokens[name], config)
        memory[name] = peak_bytes(call, device)
        cases[name] = lambda call=call: call
        progress()
    seconds = interleave(
        cases, rounds=rounds, warmup=0, seed=seed, synchronize=synchronizer(device), progress=progress
    )
    tower = summary(seconds[TOWER])["latency_p50_ms"] * LAYERS
    rows = []
    for name in methods:
        row = {"method": name, "num_tokens": num_tokens, "batch_size": batch, "keep_ratio": keep_ratio}
        row |= {"adapts": list_methods()[name]["keep_ratio"] != "exact", "limit": refused.get(name)}
        row |= dict.fromkeys(("latency_p50_ms", "latency_iqr_ms", "share_of_tower", "scratch_mib_per_image"))
        row |= {"tower_ms": tower, "stages": stages(name)}
        if name in tokens:
            spent = summary(seconds[name])
            row |= {key: spent[key] for key in ("latency_p50_ms", "latency_iqr_ms")}
            row["share_of_tower"] = spent["latency_p50_ms"] / tower
            row["scratch_mib_per_image"] = memory[name] / batch / 2**20
        rows.append(row)
    return rows


def stages(method: str) -> int:
    """After how many layers of a CLIP ViT-L/14 the method acts by default; 1 for one that acts after them."""
    layers = METHODS[method].layers or default_layers
    return len(layers(LAYERS)) if callable(layers) else 1
