"""Images cut into frames that have a budget of their own, and what was decided for those as one again."""

from __future__ import annotations

import torch
from torch import Tensor

from ..pruning.ragged import places
from ..pruning.stage import Outcome


def members(positions: Tensor, parts: int, size: int) -> Tensor:
    """Columns of `positions` [B, K] (raster indices, -1 for padding) that lie in each part of `size` tokens.

    Returns [B·parts, n], ascending, padded with -1.
    """
    part = torch.arange(parts, device=positions.device)[:, None]
    inside = (positions.unsqueeze(1) // size == part) & (positions >= 0).unsqueeze(1)  # [B, parts, K]
    return places(inside.flatten(0, 1))


def of_parts(x: Tensor, parts: int, member: Tensor | None) -> Tensor:
    """`x` [B, K] of images as [B·parts, n] of their parts; without `member` all parts are equally long."""
    if member is None:
        return x.unflatten(1, (parts, -1)).flatten(0, 1)
    return x.repeat_interleave(parts, dim=0).gather(1, member.clamp(min=0))


def of_whole_images(outcome: Outcome, parts: int, member: Tensor | None, width: int) -> Outcome:
    """The outcome of B · parts parts as one of B images with `width` columns each."""
    if member is None:
        return of_equal_parts(outcome, parts, width // parts)
    kept = outcome.keep >= 0
    columns = member.gather(1, outcome.keep.clamp(min=0)).where(kept, -1)  # [B·parts, K]
    order = places(kept.unflatten(0, (-1, parts)).flatten(1))  # [B, K'] places among all parts' kept

    def together(x: Tensor, padding: float) -> Tensor:
        x = x.unflatten(0, (-1, parts)).flatten(1)
        return x.gather(1, order.clamp(min=0)).where(order >= 0, padding)

    def spread(x: Tensor, padding: float) -> Tensor:
        """What is known of each token that entered, [B·parts, n], by its column in the image."""
        found = x.new_full((len(x) // parts, width + 1), padding)  # padding goes into the last column
        target = member.where(member >= 0, width).unflatten(0, (-1, parts)).flatten(1)
        return found.scatter(1, target, x.unflatten(0, (-1, parts)).flatten(1))[:, :width]

    assignment = outcome.assignment
    if assignment is not None:
        counts = kept.sum(dim=1).unflatten(0, (-1, parts))
        before = (counts.cumsum(dim=1) - counts).flatten()[:, None]  # kept in the parts before
        assignment = spread((assignment + before).where(assignment >= 0, -1), -1)
    sizes = None if outcome.sizes is None else together(outcome.sizes, 0.0)
    return Outcome(None, together(columns, -1), assignment, sizes, spread(outcome.scores, 0.0))


def of_equal_parts(outcome: Outcome, parts: int, entered: int) -> Outcome:
    """The same where `entered` tokens of every part came in and equally many stay."""

    def together(x: Tensor | None, step: int) -> Tensor | None:
        if x is None:
            return None
        x = x.unflatten(0, (-1, parts))  # [B, parts, n]
        return (x + step * torch.arange(parts, device=x.device)[:, None]).flatten(1)

    count = outcome.keep.shape[1]
    return Outcome(
        None,
        together(outcome.keep, entered),
        None if outcome.assignment is None else joined_groups(outcome.assignment, parts, count),
        together(outcome.sizes, 0),
        together(outcome.scores, 0),
        order=together(outcome.order, 0),
    )


def joined_groups(assignment: Tensor, parts: int, count: int) -> Tensor:
    """Groups [B·parts, N], of `count` in each part, as groups of whole images; -1 stays."""
    step = count * torch.arange(parts, device=assignment.device)[:, None]
    assignment = assignment.unflatten(0, (-1, parts))
    return (assignment + step).where(assignment >= 0, -1).flatten(1)
