"""Rank, suppress what repeats a token ranked above it, and spread what stays over the image."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from ..tokens import VisionTokens, row_blocks
from . import register_selector
from .nms import nms
from .top_k import highest

SAME = 1e-5  # squared length of a difference of two unit vectors that rounding may make
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
        self.axes = [axis.float() for axis in axes]  # [B or 1, N] each
        self.spacing = (frames * rows * columns / tokens.num_keep) ** (1 / 2 if frames == 1 else 1 / 3)
        mean = self.unit.mean(dim=1).square().sum(dim=-1)  # of all cosines, [B]
        self.scale = (2 - 2 * mean).clamp(min=SAME).sqrt()[:, None, None]
        n = self.unit.shape[1]
        self.blocks = list(row_blocks(n, n))
        self.whole = self._rows(0, n) if len(self.blocks) == 1 else None

    def rows(self, start: int, stop: int) -> Tensor:
        """[B, stop - start, N]"""
        return self.whole if self.whole is not None else self._rows(start, stop)

    def _rows(self, start: int, stop: int) -> Tensor:
        cosines = self.unit[:, start:stop] @ self.unit.transpose(1, 2)
        apart = (2 - 2 * cosines).clamp_(min=SAME).sqrt_().div_(self.scale)
        gap = sum((axis[:, start:stop, None] - axis[:, None]).square() for axis in self.axes).sqrt()
        return apart + (gap / self.spacing).clamp(max=self.reach) * self.weight

    def nearest(self, among) -> Tensor:
        """Distance of each token to the nearest of those that `among(start, stop)` admits, [B, N]."""
        blocks = [self.rows(i, j).where(among(i, j), float("inf")).amin(dim=-1) for i, j in self.blocks]
        return torch.cat(blocks, dim=1)


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
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    nearest = torch.full_like(scores, float("inf"))  # distance to what is chosen
    bounds = [tokens.num_keep * r // rounds for r in range(rounds + 1)]
    for count in (b - a for a, b in zip(bounds, bounds[1:], strict=False) if b > a):
        order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
        rank = order.argsort(dim=-1)  # 0 is the best
        above = distances.nearest(lambda i, j, rank=rank: rank[:, i:j, None] > rank[:, None])
        far = (torch.minimum(above, nearest) + bonus).masked_fill(chosen, float("-inf"))
        new = torch.zeros_like(chosen).scatter(1, highest(far, count), True)
        nearest = torch.minimum(nearest, distances.nearest(lambda i, j, new=new: new[:, None]))
        chosen, scores = chosen | new, nearest + bonus
    return highest(chosen.float(), tokens.num_keep)
