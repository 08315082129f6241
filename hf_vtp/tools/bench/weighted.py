"""Size-weighted attention in the forms it can take, timed one against the other under SDPA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from .report import Column, number
from .timing import interleave, summary, synchronizer

SHAPES = {"ViT-B/16": (12, 64, 197), "ViT-L/14-336": (16, 64, 577)}  # heads, channels of one, tokens
WARMUP = 3

COLUMNS: tuple[Column, ...] = (
    ("model", lambda row: row["model"]),
    ("batch", lambda row: str(row["batch_size"])),
    ("form", lambda row: row["form"]),
    ("p50\nms", number("latency_p50_ms", 3)),
    ("IQR\nms", number("latency_iqr_ms", 3)),
    ("of no\nweights", number("relative", 2)),
    ("error", lambda row: "n/a" if row["error"] is None else f"{row['error']:.0e}"),
)


def unweighted(query: Tensor, key: Tensor, value: Tensor, sizes: Tensor) -> Tensor:
    """Attention as it is without sizes: what the others are measured against."""
    return scaled_dot_product_attention(query, key, value)


def bias(query: Tensor, key: Tensor, value: Tensor, sizes: Tensor) -> Tensor:
    """log(size) [B, N] of each key added to its logits, as a mask; all [B, H, N, d]."""
    mask = sizes.log().to(query.dtype)[:, None, None].expand(-1, -1, query.shape[2], -1)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def channel(query: Tensor, key: Tensor, value: Tensor, sizes: Tensor, multiple: int = 1) -> Tensor:
    """The same as one more channel: 1 in the query, log(size) / scale in the key, nothing in the value.

    With `multiple`, zeros beyond it until the channels are a multiple, as fast kernels want them.
    """
    channels = query.shape[-1]
    weight = (sizes.log() * channels**0.5).to(key.dtype)[:, None, :, None].expand(-1, key.shape[1], -1, -1)
    more = -(channels + 1) % multiple
    query = torch.cat([query, query.new_ones(*query.shape[:-1], 1)], dim=-1)
    key = torch.cat([key, weight], dim=-1)
    query, key, value = pad(query, (0, more)), pad(key, (0, more)), pad(value, (0, 1 + more))
    return scaled_dot_product_attention(query, key, value, scale=channels**-0.5)[..., :channels]


FORMS = {
    "no weights": unweighted,
    "bias": bias,
    "channel": channel,
    "channel, padded to 8": partial(channel, multiple=8),
}


@torch.inference_mode()
def measure(
    model: str,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> list[dict]:
    """One row a form, in interleaved rounds, with its largest difference from the bias.

    Queries, keys and values lie in memory as CLIP's projections leave them.
    """
    heads, channels, tokens = SHAPES[model]
    generator = torch.Generator().manual_seed(seed)

    def states() -> Tensor:
        flat = torch.randn(batch, tokens, heads * channels, generator=generator).to(device, dtype)
        return flat.unflatten(-1, (heads, channels)).transpose(1, 2)

    sizes = torch.randint(1, 9, (batch, tokens), generator=generator).to(device, torch.float32)
    given = (states(), states(), states(), sizes)
    calls = {name: partial(form, *given) for name, form in FORMS.items()}
    seconds = interleave(
        {name: lambda call=call: call for name, call in calls.items()},
        rounds=rounds,
        warmup=WARMUP,
        seed=seed,
        synchronize=synchronizer(device),
        progress=progress,
    )
    expected, plain = calls["bias"]().float(), summary(seconds["no weights"])["latency_p50_ms"]
    rows = []
    for name, call in calls.items():
        weighs = FORMS[name] is not unweighted
        row = {"model": model, "num_tokens": tokens, "batch_size": batch, "form": name}
        row |= summary(seconds[name])
        row["relative"] = row["latency_p50_ms"] / plain
        row["error"] = (call().float() - expected).abs().max().item() if weighs else None
        rows.append(row)
    return rows
