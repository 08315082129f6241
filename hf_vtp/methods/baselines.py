"""What every method is compared with: tokens drawn at random (`random`), and a regular grid of them
(`uniform`).

A method that does not beat these two on a task is not worth its cost there.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.grid import regular_grid
from ..pruning.tokens import VisionTokens
from .scorers import register_scorer
from .table import register_method

# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), its constants written as the signed 64-bit numbers torch
# has.
GOLDEN, MIX1, MIX2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15


@register_scorer("uniform")
def uniform(tokens: VisionTokens) -> Tensor:
    """1 on a regular grid of `num_keep` tokens, 0 elsewhere; a floor. Returns [B, N].

    The lines run on through the frames of a clip. Where tokens were dropped already, every so-manieth of the
    rest, as if it were one line; so in each row of a batch with padding.
    """
    b, n = tokens.shape
    frames, rows, columns = tokens.grid
    whole = n == frames * rows * columns
    shape = (frames * rows, columns) if whole else (1, n)
    chosen = regular_grid(*shape, min(n, tokens.num_keep), device=tokens.hidden_states.device)
    scores = torch.zeros(n, dtype=torch.float32, device=chosen.device).scatter(0, chosen, 1.0).expand(b, n)
    if tokens.valid is None:
        return scores
    have = tokens.valid.sum(dim=1, keepdim=True)  # [B, 1] a grid of its own for each row
    count = have.clamp(max=tokens.num_keep)
    shift = torch.where(2 * count >= have, 1, 2)
    cell = torch.arange(tokens.num_keep, device=chosen.device)  # [num_keep]
    place = ((4 * cell + shift) * have // (4 * count)).where(cell < count, n)
    own = scores.new_zeros(b, n + 1).scatter(1, place, 1.0)[:, :n]
    return torch.where((have == n) & whole, scores, own)


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


register_method(
    "random",
    scorer="random",
    selector="top_k",
    merger="drop",
    summary="a floor: tokens drawn at random, seeded",
)

register_method(
    "uniform",
    scorer="uniform",
    selector="top_k",
    merger="drop",
    summary="a floor: a regular grid of tokens",
)
