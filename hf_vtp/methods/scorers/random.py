"""Uniformly random scores: a floor that every table of results shows."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer

# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), its constants written as the signed 64-bit numbers torch
# has.
GOLDEN, MIX1, MIX2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


def splitmix64(x: Tensor) -> Tensor:
    """Well mixed 64-bit numbers from a counter; int64 arithmetic wraps around in torch."""
    for shift, factor in ((30, MIX1), (27, MIX2)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


@register_scorer("random")
def random(tokens: VisionTokens, *, seed: Annotated[int, range(1 << 32)] = 0) -> Tensor:
    """Random scores from a counter-based generator of its own; a floor.

    The upper 24 bits of SplitMix64 at step i of a stream, i the token's place among those still there, from
    one; the stream begins at step seed · 65537 + layer + 1 of the one that begins at 0. A function of seed,
    layer and place only: it leaves torch's generators alone, costs no copy to the device, and gives a row the
    same choice in any batch and on any device. Returns [B, N].
    """
    b, n = tokens.shape
    counter = torch.arange(1, n + 1, device=tokens.hidden_states.device, dtype=torch.int64)
    stream = splitmix64(torch.full_like(counter, seed * 0x10001 + tokens.layer + 1) * GOLDEN)
    bits = splitmix64(stream + counter * GOLDEN)  # [N]
    return ((bits >> 40) & 0xFFFFFF).float().expand(b, n)  # 24 bits: exact in float32
