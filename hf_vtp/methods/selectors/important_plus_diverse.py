"""The most attended, and what of the rest repeats least."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens, take
from . import register_selector
from .top_k import highest


@register_selector("important_plus_diverse", paper="VisPruner (arXiv:2412.01818)", limit=4096)
def important_plus_diverse(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    share: Annotated[float, (0.0, 1.0)] = 0.5,
    step: Annotated[int, range(1, 4097)] = 8,
) -> Tensor:
    """The highest scores take `share` of the places; the rest loses its repeats until it fits the others.

    Again and again the rest is split into even and odd places, and the `step` even tokens most similar to an
    odd one (cosine of the hidden states) leave, or as many as are too many. `share` of the places is rounded.
    O(N³ / step), hence the limit. Returns [B, K].
    """
    count = min(tokens.num_keep, round(share * tokens.num_keep))
    important = highest(scores, count)
    marked = torch.zeros_like(scores).scatter(1, important, 1.0)
    rest, wanted = highest(-marked, scores.shape[1] - count), tokens.num_keep - count
    unit = tokens.unit_hidden_states()
    while wanted and rest.shape[1] > wanted:
        even, odd = take(unit, rest[:, ::2]), take(unit, rest[:, 1::2])
        similar = (even @ odd.transpose(1, 2)).amax(dim=-1)  # [B, even places]
        leave = min(step, rest.shape[1] - wanted, similar.shape[1])
        stays = torch.ones_like(rest, dtype=torch.float32)
        stays = stays.scatter(1, 2 * highest(similar, leave), 0.0)
        rest = rest.gather(1, highest(stays, rest.shape[1] - leave))
    return torch.sort(torch.cat([important, rest[:, :wanted]], dim=1), dim=1).values
