"""Far from what ranks above, in content and in the image."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from ...pruning.similarity import outranked
from ...pruning.tokens import VisionTokens, row_blocks, take
from . import register_selector
from .nms import farthest_in_rounds, nms

SAME = 1e-5  # squared length of a difference of two unit vectors that rounding may make
BOUND = 2.0**21  # above every distance: 2 / SAME**0.5 and the largest place · reach
STEADY = 1e-3  # a spread of scores below this share of their size is rounding


class Gaps:
    """weight · min(gap, reach) of pairs of places, counted in the spacing of a regular grid of `num_keep`."""

    def __init__(self, tokens: VisionTokens, weight: float, reach: float):
        self.grid, self.weight, self.reach = tokens.grid, weight, reach
        per_token = math.prod(self.grid) / tokens.num_keep
        self.spacing = per_token ** (1 / 2 if self.grid[0] == 1 else 1 / 3)
        whole = tokens.positions is None  # the grid is full
        self.axes = self._axes(tokens.place()[:1] if whole else tokens.place())  # [B or 1, N] each
        self.lines = self._lines(tokens.hidden_states.device) if whole else None

    def rows(self, start: int, stop: int) -> Tensor:
        """Of some tokens to all, [B or 1, rows, N]."""
        if self.lines is None:
            return self._between([axis[:, start:stop] for axis in self.axes], self.axes)
        _, rows, columns = self.grid
        frame, row, column = self._places(torch.arange(start, stop, device=self.lines.device)[:, None])
        other, another, _ = self._places(torch.arange(0, math.prod(self.grid), columns, device=row.device))
        away = ((frame - other).abs() * rows + (row - another).abs()) * columns + column  # [rows, F·R]
        return self.lines.index_select(0, away.flatten()).view(1, stop - start, -1)

    def to(self, columns: Tensor, start: int, stop: int) -> Tensor:
        """Of some tokens to those at `columns` [B, K], [B, rows, K]."""
        others = [take(axis.expand(len(columns), -1), columns) for axis in self.axes]
        return self._between([axis[:, start:stop] for axis in self.axes], others)

    def _lines(self, device: torch.device) -> Tensor:
        """Of a column to every token of a line so many frames and rows away, [F·R·C, C].

        On a full grid `rows` copies these lines, in a fraction of the time of a square root for each pair.
        """
        places = torch.arange(math.prod(self.grid), device=device)[None]
        return self._between(self._axes(places), self._axes(places[:, : self.grid[2]]))[0]

    def _between(self, own: list[Tensor], others: list[Tensor]) -> Tensor:
        """Of tokens with these axes [B, rows] to others with these [B, K]; [B, rows, K]."""
        pairs = zip(own, others, strict=True)
        gap = sum((mine[:, :, None] - other[:, None]).square() for mine, other in pairs).sqrt_()
        return gap.div_(self.spacing).clamp_(max=self.reach).mul_(self.weight)

    def _axes(self, place: Tensor) -> list[Tensor]:
        """Those along which tokens can lie apart, as numbers."""
        return [axis.float() for axis in self._places(place)[self.grid[0] == 1 :]]

    def _places(self, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frame, row and column of raster indices."""
        _, rows, columns = self.grid
        return place // (rows * columns), place // columns % rows, place % columns


class Distances:
    """How unlike two tokens are, and how far apart: |u_i − u_j| / RMS + weight · min(gap, reach).

    u are hidden states of length one, RMS the root of the mean of |u_i − u_j|² over all pairs. By blocks of
    rows, kept only where one block holds them all.
    """

    def __init__(self, tokens: VisionTokens, weight: float, reach: float):
        self.unit, self.gaps = tokens.unit_hidden_states(), Gaps(tokens, weight, reach)
        self.minus_twice = self.unit * -2
        mean = self.unit.mean(dim=1).square().sum(dim=-1)  # of all cosines, [B]
        self.scale = (2 - 2 * mean).clamp(min=SAME).sqrt()[:, None, None]
        n = self.unit.shape[1]
        self.blocks = list(row_blocks(n, n))
        self.whole = self._rows(0, n) if len(self.blocks) == 1 else None

    def to(self, columns: Tensor) -> Tensor:
        """Distance of each token to the nearest of those at `columns` [B, K], [B, N]."""
        unit, near = take(self.unit, columns), []
        for start, stop in row_blocks(self.unit.shape[1], columns.shape[1]):
            apart = self._unlike(start, stop, unit).add_(self.gaps.to(columns, start, stop))
            near.append(apart.amin(dim=-1))
        return torch.cat(near, dim=1)

    def to_outranking(self, rank: Tensor) -> Tensor:
        """Distance of each token to the nearest of a smaller `rank`, [B, N]; at least BOUND where none is."""
        near = []
        for start, stop in self.blocks:
            apart = self.whole if self.whole is not None else self._rows(start, stop)
            near.append(outranked(rank, start, stop, -BOUND).clamp_(min=apart).amin(dim=-1))
        return torch.cat(near, dim=1)

    def _rows(self, start: int, stop: int) -> Tensor:
        """Of some tokens to all, [B, rows, N]."""
        return self._unlike(start, stop, self.unit).add_(self.gaps.rows(start, stop))

    def _unlike(self, start: int, stop: int, unit: Tensor) -> Tensor:
        """|u_i − u_j| / RMS of some tokens and those with these states [B, K, D], [B, rows, K]."""
        squares = (self.minus_twice[:, start:stop] @ unit.transpose(1, 2)).add_(2)
        return squares.clamp_(min=SAME).sqrt_().div_(self.scale)


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
