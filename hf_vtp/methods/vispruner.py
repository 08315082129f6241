"""VisPruner: half of the places go by the attention of [CLS], half to what repeats least among the rest.

Paper: arXiv:2412.01818v2. Compared with Theia-4869/VisPruner, llava/model/llava_arch.py, commit aefa01ad, in
November 2026: the same tokens. As released an odd rest fails in a reshape; here its last token is one of the
even places. Other toolkits put the rest in raster order before every round and so keep other tokens.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .selectors import register_selector
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

    The rest begins in the order of its scores. Again and again it is split into even and odd places, and the
    `step` even tokens most similar to an odd one (cosine of the hidden states) leave, or as many as are too
    many; what stays of the even ones, by falling similarity, goes before the odd ones into the next round.
    `share` of the places is rounded down. O(N³ / step), hence the limit. Returns [B, K].
    """
    count, unit = int(share * tokens.num_keep), tokens.unit_hidden_states()
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    important, rest, wanted = order[:, :count], order[:, count:], tokens.num_keep - count
    while wanted and rest.shape[1] > wanted:
        even, odd = rest[:, ::2], rest[:, 1::2]
        similar = (take(unit, even) @ take(unit, odd).transpose(1, 2)).amax(dim=-1)  # [B, even places]
        leave = min(step, rest.shape[1] - wanted, similar.shape[1])
        stay = torch.sort(similar, dim=1, descending=True, stable=True).indices[:, leave:]
        rest = torch.cat([even.gather(1, stay), odd], dim=1)
    return torch.sort(torch.cat([important, rest[:, :wanted]], dim=1), dim=1).values


register_method(
    "vispruner",
    scorer="cls_attention",
    selector="important_plus_diverse",
    merger="drop",
    summary="half of the places by attention of [CLS], half by diversity",
    paper="VisPruner (arXiv:2412.01818v2)",
    layers="output",
)
