"""Drop the lowest, then what resembles a better one."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens, take
from . import register_selector
from .top_k import highest


@register_selector("unlike_ranked", needs=("key",), paper="Zero-TPrune (arXiv:2305.17328)")
def unlike_ranked(
    scores: Tensor, tokens: VisionTokens, *, by_score: Annotated[float, (0.0, 1.0)] = 0.5
) -> Tensor:
    """Part of those to leave have the lowest scores; the others resemble a token that ranks higher.

    After the share `by_score` has left, the lower half of the rest by score is compared with the upper half,
    and what is most similar to one of it leaves (cosine of the mean keys; of equally similar ones the lowest
    score). An odd one out belongs to the upper half. More leave by score where half of the rest would not
    suffice. Returns [B, K].
    """
    b, n = scores.shape
    leave = n - tokens.num_keep
    lowest = max(round(by_score * leave), n - 2 * tokens.num_keep)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, : n - lowest]
    upper, lower = order.tensor_split([(order.shape[1] + 1) // 2], dim=1)
    unit = tokens.unit_keys()
    similar = (take(unit, lower) @ take(unit, upper).transpose(1, 2)).amax(dim=-1)  # [B, lower half]
    stays = lower.gather(1, highest(-similar, lower.shape[1] - (leave - lowest)))
    return torch.sort(torch.cat([upper, stays], dim=1), dim=1).values
