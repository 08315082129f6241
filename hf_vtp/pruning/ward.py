"""Weighted Ward clustering: again and again the two groups merge whose union adds least squared error.

Reciprocal nearest neighbours merge at once. Ward's criterion is reducible (a union is never nearer to a
third group than the nearer of its parts was), so the tree is that of the serial loop, in a few rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

import torch
from torch import Tensor

from .similarity import ranks
from .tokens import row_blocks, take

WINDOW = 1024  # most tokens among which all distances are there at once: 4 MiB of float32


def may_wait(x: Tensor) -> bool:
    """Whether the host may ask what is in a tensor: a device would be waited for, a graph cannot."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def max_rounds(num_tokens: int, count: int) -> int:
    """The most rounds of merges; about half of them find all that are needed on photographs."""
    return 12 + ceil(6 * log2(num_tokens / count))


def ward(x: Tensor, weights: Tensor, count: int, order: Tensor | None = None) -> Tensor:
    """The token that the group of each token goes by, [B, N], once `count` groups are there.

    A union of groups with weights a and b and with centres at a distance d adds a·b / (a + b) · d² to the
    weighted squared error. Those N - count merges are made that a loop makes which always takes the cheapest
    next. A group goes by the token of its heavier part. More than WINDOW tokens are cut, along `order` [B,
    N], into windows of one size; then only groups of one window merge, the cheapest merges of all windows
    first.

    A CPU runs as many rounds as it takes; a device on which that is not known without a wait, and a compiled
    graph, always `max_rounds`. Where these do not find enough merges (equal points; a long chain of ever
    nearer ones), the lightest groups that are too many are dissolved, and their tokens join the nearest of
    the tokens that the others go by.

    Args:
        x: [B, N, D] of any dtype; differences are taken in float32.
        weights: [B, N] float32, above 0.
    """
    b, n, _ = x.shape
    own = torch.arange(n, device=x.device).expand(b, n)
    if count >= n:
        return own
    windows = ceil(n / WINDOW)
    length = ceil(n / windows)
    if windows == 1:
        parent, height = merges(squared_distances(x), weights, None, n - count, 1)
    else:
        spare = windows * length - n
        places = torch.nn.functional.pad(order, (0, spare), value=0)  # [B, windows · length]
        real = torch.arange(windows * length, device=x.device).expand_as(places) < n
        found, costs = merges(
            squared_distances(take(x, places).view(b * windows, length, -1)),
            take(weights, places).view(b * windows, length),
            real.reshape(b * windows, length),
            n - count,
            windows,
        )
        found = (
            found.view(b, windows, length)
            + torch.arange(0, windows * length, length, device=x.device)[:, None]
        )
        parent = torch.empty_like(own).scatter(1, order, take(places, found.flatten(1))[:, :n])
        height = torch.empty_like(weights).scatter(1, order, costs.view(b, -1)[:, :n])
    made = (ranks(-height) < n - count) & height.isfinite()
    leader = torch.where(made, parent, own)
    for _ in range(max_rounds(n, count).bit_length()):  # a chain of merges has one link a round at most
        leader = leader.gather(1, leader)
    return enough(x, weights, leader, count)


@dataclass
class Groups:
    """What is there between two rounds, R groups in each of W windows; on a CPU there are ever fewer rows."""

    distances: Tensor  # [W, R, R] squared, between centres
    weights: Tensor  # [W, R]
    tokens: Tensor  # [W, R] place, in the window, of the token that a group goes by
    heights: Tensor  # [W, R] the cost of the costliest merge inside a group
    live: Tensor | None  # [W, R] False where a row holds no group; None = all do

    def cheapest(self) -> tuple[Tensor, Tensor]:
        """What each group's cheapest merge costs, inf for a row without a group, and with which, [W, R]."""
        inverse, found = self.weights.reciprocal(), []
        for start, stop in self.blocks():
            own = inverse[start:stop]
            cost = self.distances[start:stop] / (own[:, :, None] + own[:, None])
            cost.diagonal(dim1=1, dim2=2).fill_(float("inf"))
            if self.live is not None:
                cost = cost.masked_fill_(~self.live[start:stop, None], float("inf"))
            found.append(cost.min(dim=-1))
        least, partner = joined([best.values for best in found]), joined([best.indices for best in found])
        return (least if self.live is None else least.masked_fill(~self.live, float("inf"))), partner

    def blocks(self) -> list[tuple[int, int]]:
        """(start, stop) pairs over windows, of whose distances some may be there twice."""
        return list(row_blocks(len(self.distances), self.distances.shape[1] ** 2))

    def merged(self, partner: Tensor, wins: Tensor, heights: Tensor, live: Tensor, waits: bool) -> Groups:
        """After the groups in `wins` took up their `partner`; rows that are not `live` go, if it `waits`."""
        rows = torch.arange(live.shape[1], device=live.device).expand_as(live)
        if waits:
            rows = torch.sort((~live).to(torch.uint8), dim=1, stable=True).indices
            rows = rows[:, : int(live.sum(dim=1).max())]
        wins, live = wins.gather(1, rows), live.gather(1, rows)
        other = torch.where(wins, partner.gather(1, rows), rows)
        added = torch.where(wins, self.weights.gather(1, other), 0.0)
        weights = self.weights.gather(1, rows) + added
        share = added / weights  # of the other in the union
        blocks = [
            between_unions(self.distances[i:j], rows[i:j], other[i:j], share[i:j]) for i, j in self.blocks()
        ]
        return Groups(
            joined(blocks),
            weights,
            self.tokens.gather(1, rows),
            torch.where(wins, heights.gather(1, rows), self.heights.gather(1, rows)),
            None if waits and bool(live.all()) else live,
        )


def merges(
    distances: Tensor, weights: Tensor, live: Tensor | None, needed: int, windows: int
) -> tuple[Tensor, Tensor]:
    """The token whose group took up each token's, and what that cost, inf where none did; both [W, L].

    Args:
        distances, weights, live: of windows, [W, L, L] and [W, L]; `windows` of them make an image.
        needed: merges of each image that are to be certain.
    """
    w, length = weights.shape
    waits = may_wait(weights)
    parent = torch.arange(length, device=weights.device).expand(w, length)
    height = torch.full_like(weights, float("inf"))
    groups = Groups(distances, weights, parent, torch.zeros_like(weights), live)
    del distances  # a round needs room for its own
    for _ in range(max_rounds(windows * length, windows * length - needed)):
        least, partner = groups.cheapest()
        if waits and all_found(height, least, needed, windows):
            break
        row = torch.arange(partner.shape[1], device=partner.device)
        mutual = (partner.gather(1, partner) == row) & least.isfinite()
        own, other = groups.weights, groups.weights.gather(1, partner)
        wins = mutual & ((own > other) | ((own == other) & (row < partner)))
        loses = mutual & ~wins
        # no merge may seem cheaper, by rounding, than one inside it
        cost = torch.maximum(torch.maximum(groups.heights, groups.heights.gather(1, partner)), least)
        into, tokens = groups.tokens.gather(1, partner), groups.tokens
        parent = parent.scatter(1, tokens, torch.where(loses, into, parent.gather(1, tokens)))
        height = height.scatter(1, tokens, torch.where(loses, cost, height.gather(1, tokens)))
        left = ~loses if groups.live is None else groups.live & ~loses
        groups = groups.merged(partner, wins, cost, left, waits)
    return parent, height


def all_found(height: Tensor, least: Tensor, needed: int, windows: int) -> bool:
    """Whether no merge to come is cheaper than the `needed` cheapest so far; waits for the answer."""
    last = height.view(-1, windows * height.shape[1]).kthvalue(needed, dim=1).values
    return bool((last <= least.view(len(last), -1).amin(dim=1)).all())


def enough(x: Tensor, weights: Tensor, leader: Tensor, count: int) -> Tensor:
    """`leader` [B, N] with exactly `count` groups: those that are too many, the lightest, are dissolved."""
    n = leader.shape[1]
    own = torch.arange(n, device=x.device)
    if may_wait(x):
        if bool(((leader == own).sum(dim=1) == count).all()):
            return leader
    total = torch.zeros_like(weights).scatter_add(1, leader, weights)
    kept = ranks(total.masked_fill(leader != own, -1.0)) < count  # [B, N], `count` in each row
    targets = torch.sort((~kept).to(torch.uint8), dim=1, stable=True).indices[:, :count]
    nearest = []
    centres = take(x, targets).float()
    for start, stop in row_blocks(n, count):
        nearest.append(torch.cdist(x[:, start:stop].float(), centres).argmin(dim=-1))
    joins = targets.gather(1, torch.cat(nearest, dim=1))
    return torch.where(kept.gather(1, leader), leader, joins)


def squared_distances(x: Tensor) -> Tensor:
    """|x_i − x_j|² of the rows of `x` [W, L, D], [W, L, L] in float32."""
    found = []
    for start, stop in row_blocks(len(x), x.shape[1] ** 2):
        own = x[start:stop].float()
        own = own - own.mean(dim=1, keepdim=True)  # a product loses digits to what all have in common
        products = own @ own.transpose(1, 2)
        squares = products.diagonal(dim1=1, dim2=2).clone()
        products.mul_(-2).add_(squares[:, :, None]).add_(squares[:, None]).clamp_(min=0)
        found.append(products)
    return joined(found)


def between_unions(distances: Tensor, rows: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Squared distances [W, R, R] of unions of the groups `rows` and `other` [W, R], of those [W, S, S].

    `share` [W, R] is the weight of the other in the union; 0 where a group stays as it is. The union's centre
    lies on the line between the two, so Stewart's theorem gives its distances.
    """
    upper = matrix_rows(distances, rows)
    saved = upper.gather(2, other[:, :, None]).squeeze(2) * (share * (1 - share))
    upper = torch.lerp(upper, matrix_rows(distances, other), share[:, :, None]).sub_(saved[:, :, None])
    left, right = (upper.gather(2, index[:, None].expand(-1, rows.shape[1], -1)) for index in (rows, other))
    return torch.lerp(left, right, share[:, None]).sub_(saved[:, None])


def joined(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks of windows as one tensor, without a copy where there is but one."""
    return blocks[0] if len(blocks) == 1 else torch.cat(tuple(blocks))


def matrix_rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [W, R] of the matrices `x` [W, S, S], [W, R, S]; faster than a gather."""
    start = torch.arange(0, x.shape[0] * x.shape[1], x.shape[1], device=x.device)[:, None]
    return x.flatten(0, 1).index_select(0, (index + start).flatten()).view(*index.shape, -1)
