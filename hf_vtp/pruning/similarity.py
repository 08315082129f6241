"""Products of tokens with tokens, in blocks of rows so that no N×N matrix is ever whole."""

from collections.abc import Callable

import torch
from torch import Tensor

from .tokens import row_blocks, take


class Cosines:
    """Cosines of all tokens with all, by blocks of rows; kept only where one block holds them all."""

    def __init__(self, unit: Tensor):
        self.unit = unit  # [B, N, D] of length one
        self.blocks = list(row_blocks(unit.shape[1], unit.shape[1]))
        self.whole = unit @ unit.transpose(1, 2) if len(self.blocks) == 1 else None

    def rows(self, start: int, stop: int) -> Tensor:
        """[B, stop - start, N]"""
        return self.whole if self.whole is not None else self.unit[:, start:stop] @ self.unit.transpose(1, 2)

    def of(self, chosen: Tensor) -> Tensor:
        """Cosines of one token of each image, `chosen` [B], with all, [B, N]."""
        index = chosen[:, None]
        if self.whole is not None:
            return take(self.whole, index).squeeze(1)
        return (self.unit @ take(self.unit, index).transpose(1, 2)).squeeze(-1)

    def row_max(self, cap: Callable[[int, int], Tensor]) -> Tensor:
        """Largest of each row's cosines, each at most `cap(start, stop)` [B or 1, rows, N]; [B, N]."""
        return torch.cat([self.rows(i, j).clamp(max=cap(i, j)).amax(dim=-1) for i, j in self.blocks], dim=1)


def ranks(scores: Tensor) -> Tensor:
    """Rank of each token, 0 the highest score, ties to the lower index, [B, N]."""
    order = torch.sort(scores, dim=-1, descending=True, stable=True).indices
    place = torch.arange(order.shape[1], device=order.device)
    return torch.empty_like(order).scatter(1, order, place.expand_as(order))


def outranked(rank: Tensor, start: int, stop: int, bound: float) -> Tensor:
    """Where a column's token outranks a row's, at least `bound`; elsewhere at most -`bound`; [B, rows, N].

    (The other way round for a `bound` below 0.) The smaller of it and a number within ±`bound` is that number
    or one below all of them. On a CPU this takes a fifth of the time of a comparison and `where`, which are
    not vectorised over bool.
    """
    twice = rank.float() * (2 * bound)
    return (twice[:, start:stop] - bound)[:, :, None] - twice[:, None]


def nearest(x: Tensor, targets: Tensor) -> Tensor:
    """For every row of `x` [B, N, D] the index of the most similar row of `targets` [B, K, D], [B, N].

    Both of length one; ties go to the lower index.
    """
    return nearest_with_similarity(x, targets)[0]


def nearest_with_similarity(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and how similar that row is, [B, N]."""
    index, similarity = [], []
    for i, j in row_blocks(x.shape[1], targets.shape[1]):
        best = (x[:, i:j] @ targets.transpose(1, 2)).max(dim=-1)  # torch promises the first of equals
        index.append(best.indices)
        similarity.append(best.values)
    return torch.cat(index, dim=1), torch.cat(similarity, dim=1)


def groups_or_nearest(groups: Tensor | None, keep: Tensor, unit: Callable[[], Tensor]) -> Tensor:
    """The group of every token [B, N]: as given, else of the kept token most similar by rows of `unit`.

    A kept token is in its own, also where those given have it in none.
    """
    if groups is None:
        states = unit().detach()
        groups = nearest(states, take(states, keep))
    return groups.scatter(1, keep, torch.arange(keep.shape[1], device=keep.device).expand_as(keep))


def relevance(scores: Tensor) -> Tensor:
    """Scores as weights, [B, N]: none below 0; ones where an image has none above."""
    weight = scores.clamp(min=0)
    return weight.where(weight.amax(dim=1, keepdim=True) > 0, 1.0)


def rank_within(groups: Tensor, scores: Tensor) -> Tensor:
    """Rank of each token among those of its group, 0 the highest score, ties to the lower index, [B, N]."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    again = torch.sort(groups.gather(1, order), dim=1, stable=True)
    order = order.gather(1, again.indices)  # group after group, each from its best
    place = torch.arange(groups.shape[1], device=groups.device).expand_as(groups)
    starts = torch.ones_like(groups, dtype=torch.bool)
    starts[:, 1:] = again.values[:, 1:] != again.values[:, :-1]
    start = torch.where(starts, place, 0).cummax(dim=1).values  # where the group of each place begins
    return torch.empty_like(groups).scatter(1, order, place - start)


def top_mask(x: Tensor, count: int) -> Tensor:
    """The `count` largest of each row of `x` [..., N] as bool, ties to the lower index."""
    least = x.topk(count, dim=-1).values[..., -1:]  # the values are certain, whatever the order of ties
    above, level = x > least, x == least
    return above | (level & (level.cumsum(dim=-1) <= count - above.sum(dim=-1, keepdim=True)))


def group_sum(x: Tensor, assignment: Tensor, num_groups: int) -> Tensor:
    """Sums of the rows of `x` [B, N, D] that share a group, [B, num_groups, D].

    On a CPU row after row; elsewhere, where an atomic scatter would sum in another order each time, a product
    with a one-hot matrix, in blocks of groups.
    """
    (b, n, d), sums = x.shape, []
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = num_groups + 1  # one for what is in no group
        place = assignment.where((assignment >= 0) & (assignment < num_groups), num_groups)
        place = place + torch.arange(0, b * rows, rows)[:, None]
        sums = x.new_zeros(b * rows, d).index_add(0, place.flatten(), x.flatten(0, 1))
        return sums.view(b, rows, d)[:, :num_groups]
    for start, stop in row_blocks(num_groups, n):
        count = stop - start
        place = assignment - start
        place = place.where(
            (place >= 0) & (place < count), count
        )  # others go to a last row, which is cut off
        member = x.new_zeros(b, count + 1, n).scatter_(1, place.unsqueeze(1), 1.0)
        sums.append(member[:, :count] @ x)
    return torch.cat(sums, dim=1)


def group_mean(x: Tensor, weights: Tensor, assignment: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Means of the rows of `x` [B, N, D] that share a group, weighted by `weights` [B, N], in float32.

    Returns them, [B, num_groups, D], zero for a group without weight, and the groups' own weights [B,
    num_groups].
    """
    weights = weights.unsqueeze(-1)  # [B, N, 1]
    total = group_sum(weights, assignment, num_groups)
    mean = group_sum(x.float() * weights, assignment, num_groups) / total.clamp(min=1e-12)
    return mean, total.squeeze(-1)
