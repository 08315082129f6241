"""VisPruner: half of the places go by the attention of [CLS], half to what repeats least among the rest.

Paper: arXiv:2412.01818v2. Compared with Theia-4869/VisPruner, llava/model/llava_arch.py, commit aefa01ad, in
November 2026: the same tokens where the rest is put in raster order before every round, as other toolkits do;
as released it stays in the order of attention and each round reorders it.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .selectors import register_selector
from .selectors.top_k import highest
from .table import register_method


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


register_method(
    "vispruner",
    scorer="cls_attention",
    selector="important_plus_diverse",
    merger="drop",
    summary="half of the places by attention of [CLS], half by diversity",
    paper="VisPruner (arXiv:2412.01818v2)",
    layers="output",
    differs=(
        "The rest is split into even and odd places in raster order, as released in the order of attention, "
        "which every round changes."
    ),
)
