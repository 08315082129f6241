"""Rows with different counts: rectangles padded with -1."""

import torch
from torch import Tensor

from .similarity import ranks
from .tokens import VisionTokens


def places(mask: Tensor) -> Tensor:
    """Where each row of `mask` [B, N] is True, ascending, padded with -1 to the longest row, [B, K].

    Waits for the device, since K is a Python int.
    """
    counts = mask.sum(dim=1, keepdim=True)
    order = torch.sort((~mask).to(torch.uint8), dim=1, stable=True).indices[:, : int(counts.max())]
    return order.masked_fill(torch.arange(order.shape[1], device=mask.device) >= counts, -1)


def valid_scores(scores: Tensor, tokens: VisionTokens) -> tuple[Tensor, Tensor]:
    """Scores with -inf for padding, [B, N], and how many tokens each image has, [B]."""
    b, n = tokens.shape
    if tokens.valid is None:
        return scores, torch.full((b,), n, device=scores.device)
    return scores.masked_fill(~tokens.valid, float("-inf")), tokens.valid.sum(dim=1)


def best(scores: Tensor, counts: Tensor, tokens: VisionTokens) -> Tensor:
    """The `counts` [B] highest scores of each image, ties to the lower index, [B, K] padded with -1.

    Counts are brought within `min_keep`, `max_keep` and what an image has.
    """
    scores, have = valid_scores(scores, tokens)
    counts = counts.clamp(min=tokens.min_keep, max=tokens.max_keep).minimum(have)
    return places(ranks(scores) < counts[:, None])
