"""HiPrune: anchors of a middle layer with their neighbours, then what a deep layer attends to.

Paper: arXiv:2508.00553. Compared with Danielement321/HiPrune, LLaVA/llava/model/llava_arch.py, commit
6e83a124, in November 2026: the same tokens, of the same two layers. At the border of the image the released
code takes the next row's first token for a neighbour; here neighbours share an edge.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .selectors.top_k import highest, highest_by
from .table import register_method


def middle(
    layer: int, num_layers: int, num_prefix_tokens: int, *, anchor_depth: float | None = None, **options
) -> list[int]:
    """The last of this share of the layers, or the stage's own where that lies further up."""
    if anchor_depth is None:
        anchor_depth = 9 / 24 if num_prefix_tokens else 16 / 32  # of CLIP-L, of Qwen2.5-VL
    return [min(layer, max(0, round(anchor_depth * num_layers) - 1))]


def received(tokens: VisionTokens, **options) -> Tensor:
    return tokens.received_attention().mean(dim=1)


@register_selector(
    "anchors_buffers",
    needs=("attention",),
    paper="HiPrune (arXiv:2508.00553)",
    watches=middle,
    observe=received,
)
def anchors_buffers(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    alpha: Annotated[float, (0.0, 5.0)] = 0.1,
    anchor_depth: float | None = None,
) -> Tensor:
    """Anchors by the attention a middle layer's tokens receive, their four neighbours, the rest by score.

    There are round(num_keep · alpha / 5) anchors, at least one; neighbours share an edge and are of the same
    frame. Where they are too many the anchors go first, then the neighbours with the highest scores.
    The middle is the last of the first `anchor_depth` of all layers; None is the paper's 9 of CLIP-L's 24
    (layer 8, counted from 0) and, in towers without a [CLS], 16 of Qwen2.5-VL's 32 (block 15, which sees the
    whole image). Returns [B, K].
    """
    earlier = tokens.seen[max(layer for layer in tokens.seen if layer <= tokens.layer)]
    count = max(1, round(tokens.num_keep * alpha / 5))
    anchors = highest(earlier, count)
    frames, rows, columns = tokens.grid
    place = tokens.place()
    marked = scores.new_zeros(len(scores), frames * rows * columns)
    marked = marked.scatter(1, place.gather(1, anchors), 1.0).view(-1, frames, rows, columns)
    around = torch.zeros_like(marked)
    around[:, :, 1:] += marked[:, :, :-1]
    around[:, :, :-1] += marked[:, :, 1:]
    around[:, :, :, 1:] += marked[:, :, :, :-1]
    around[:, :, :, :-1] += marked[:, :, :, 1:]
    wanted = (2 * marked + (around > 0)).clamp(max=2).flatten(1).gather(1, place)  # 2 an anchor, 1 beside one
    return highest_by(wanted, scores, tokens.num_keep)


register_method(
    "hiprune",
    scorer="received_attention",
    selector="anchors_buffers",
    merger="drop",
    summary="anchors of a middle layer with their neighbours, then what a deep layer attends to",
    paper="HiPrune (arXiv:2508.00553)",
    layers="output",
    differs="Neighbours of an anchor at the image's border do not run on into the next row, as released.",
)
