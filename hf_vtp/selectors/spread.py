"""Rank, suppress what repeats a token ranked above it, and spread what stays over the image."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ..similarity import outranked
from ..tokens import VisionTokens, row_blocks, take
from . import register_selector
from .nms import farthest_in_rounds, nms

SAME = 1e-5  # squared length of a difference of two unit vectors that rounding may make
BOUND = 2.0**21  # above every distance: 2 / SAME**0.5 and the largest place · reach
STEADY = 1e-3  # a spread of scores below this share of their size is rounding


class Distances:
    """How unlike two tokens are, and how far apart: |u_i − u_j| / RMS + weight · min(gap, reach).

    u are hidden states of length one, RMS the root of the mean of |u_i − u_j|² over all pairs; the gap of two
    places is counted in the spacing that `num_keep` tokens would have on a regular grid. By blocks of rows,
    kept only where one block holds them all.
    """

    def __init__(self, tokens: VisionTokens, weight: float, reach: float):
        self.unit, self.weight, self.reach = tokens.unit_hidden_states(), weight, reach
        frames, rows, columns = tokens.grid
        place = tokens.place() if tokens.positions is not None else tokens.place()[:1]
        axes = (place // (rows * columns), place // columns % rows, place % columns)
        self.axes = [axis.float() for axis in axes[frames == 1 :]]  # [B or 1, N] each
        self.spacing = (frames * rows * columns / tokens.num_keep) ** (1 / 2 if frames == 1 else 1 / 3)
        mean = self.unit.mean(dim=1).square().sum(dim=-1)  # of all cosines, [B]
        self.scale = (2 - 2 * mean).clamp(min=SAME).sqrt()[:, None, None]
        n = self.unit.shape[1]
        self.blocks = list(row_blocks(n, n))
        self.whole = self._apart(0, n, self.unit, self.axes) if len(self.blocks) == 1 else None

    def to(self, columns: Tensor) -> Tensor:
        """Distance of each token to the nearest of those at `columns` [B, K], [B, N]."""
        unit = take(self.unit, columns)
        axes = [take(axis.expand(len(columns), -1), columns) for axis in self.axes]
        n, k = self.unit.shape[1], columns.shape[1]
        return torch.cat([self._apart(i, j, unit, axes).amin(dim=-1) for i, j in row_blocks(n, k)], dim=1)

    def to_outranking(self, rank: Tensor) -> Tensor:
        """Distance of each token to the nearest of a smaller `rank`, [B, N]; at least BOUND where none is."""
        blocks = [self._rows(i, j).clamp(min=outranked(rank, i, j, -BOUND)) for i, j in self.blocks]
        return torch.cat([block.amin(dim=-1) for block in blocks], dim=1)

    def _rows(self, start: int, stop: int) -> Tensor:
        """[B, stop - start, N]"""
        return self.whole if self.whole is not None else self._apart(start, stop, self.unit, self.axes)

    def _apart(self, start: int, stop: int, unit: Tensor, axes: list[Tensor]) -> Tensor:
        """Distances of some rows to the tokens with these states [B, K, D] and places, [B, rows, K]."""
        cosines = self.unit[:, start:stop] @ unit.transpose(1, 2)
        apart = (2 - 2 * cosines).clamp_(min=SAME).sqrt_().div_(self.scale)
        pairs = zip(self.axes, axes, strict=True)
        gap = sum((own[:, start:stop, None] - other[:, None]).square() for own, other in pairs).sqrt()
        return apart + (gap / self.spacing).clamp(max=self.reach) * self.weight


@register_selector("spread", paper="this project; after Fast NMS (YOLACT, arXiv:1904.02689)")
def spread(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    place: Annotated[float, (0, 1000)] = 2.0,
    score: Annotated[float, (0, 1000)] = 0.4,
    reach: Annotated[float, (0, 1000)] = 1.5,
    rounds: Annotated[int, range(1, 1001)] = 4,
) -> Tensor:
    """The `num_keep` tokens farthest from any token that outranks them, in content and in the image.

    far_i = min over tokens j ranked above i of |u_i − u_j| / RMS + place · min(gap_ij, reach), plus
    score · z_i with z the scores, their mean taken off, in standard deviations; the largest stay. u are
    hidden states of length one, RMS the root of the mean of |u_i − u_j|², the gap is counted in the spacing
    of a regular grid of `num_keep` tokens (frames are an axis like rows). `rounds` as in `nms`: from the
    second on, tokens rank by their distance to what is chosen already, plus their score, and what is near the
    chosen counts as near.

    A language model gives every token the same weight, however many it stands for, so what it reads is to
    show the image as a whole. Where the tower itself pools what stays (CLIP), and weighs it by size, `nms`
    alone is better and is what this does. Returns [B, K].
    """
    if tokens.pooled:
        return nms(scores, tokens, rounds=rounds)
    distances = Distances(tokens, place, reach)
    deviation = scores - scores.mean(dim=1, keepdim=True)
    least = scores.abs().mean(dim=1, keepdim=True) * STEADY
    bonus = score * deviation / scores.std(dim=1, keepdim=True, correction=0).maximum(least).clamp(min=1e-30)
    return farthest_in_rounds(scores, tokens.num_keep, rounds, distances.to_outranking, distances.to, bonus)
