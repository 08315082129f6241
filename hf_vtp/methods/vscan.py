"""VScan, its half in the encoder: half of the kept by deep attention of the whole image, half by shallow
attention in each window; the rest is merged into what it resembles.

Paper: arXiv:2505.22654, section 4.1; its second half prunes inside the language model, which this library
does not. The released code (Tencent/SelfEvolvingAgent, VScan) could not be read in November 2026: the loops
in tests/references follow the paper.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.similarity import rank_within
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .selectors.top_k import highest, highest_by
from .table import register_method


def shallow(
    layer: int, num_layers: int, num_prefix_tokens: int, *, local_depth: float | None = None, **options
) -> list[int]:
    """The layer at this share of the depth, counted from one, or the stage's own where that is earlier."""
    if local_depth is None:
        local_depth = 6 / 24 if num_prefix_tokens else 8 / 32  # of CLIP-L, of Qwen2.5-VL
    return [min(layer, max(0, round(local_depth * num_layers) - 1))]


def attended(tokens: VisionTokens, **options) -> Tensor:
    return tokens.salience()


@register_selector(
    "global_local",
    needs=("attention",),
    paper="VScan (arXiv:2505.22654)",
    watches=shallow,
    observe=attended,
)
def global_local(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    global_share: Annotated[float, (0.0, 1.0)] = 0.5,
    windows: Annotated[int, range(1, 65)] = 4,
    local_depth: float | None = None,
) -> Tensor:
    """The highest scores take `global_share` of the places, rounded; windows share the rest evenly.

    Of the tokens not taken yet each window gives its most attended one in turn, by the attention of [CLS] in
    a shallow layer (received attention without one); of the windows' last turn, those most attended. There
    are `windows` × `windows` in each frame: (r, c) has the tokens at row · windows // rows = r and column ·
    windows // columns = c. `local_depth` is where the shallow layer lies, as a share of the layers counted
    from one; None is the paper's 6 of CLIP-L's 24 and, in towers without a [CLS], 8 of Qwen2.5-VL's 32.
    Returns [B, K].
    """
    early = tokens.seen[max(layer for layer in tokens.seen if layer <= tokens.layer)]
    count = round(global_share * tokens.num_keep)
    taken = torch.zeros_like(scores).scatter(1, highest(scores, count), 1.0)
    _, rows, columns = tokens.grid
    place = tokens.place()
    row, column = place // columns % rows, place % columns
    frame = place // (rows * columns)
    window = (frame * windows + row * windows // rows) * windows + column * windows // columns
    turn = rank_within(window, early.masked_fill(taken > 0, float("-inf"))).float()
    turn = turn.masked_fill(taken > 0, -1.0)  # first of all
    return highest_by(-turn, early, tokens.num_keep)


register_method(
    "vscan",
    scorer="cls_attention",
    selector="global_local",
    merger="absorb",
    summary="half by attention of the whole image, half by shallow attention in windows; the rest is merged",
    paper="VScan (arXiv:2505.22654)",
    layers="output",
    differs=(
        "Only the paper's half in the encoder; the released code could not be compared, and what the paper "
        "leaves open is this library's choice: 4 × 4 windows, layers counted from one, and a token that both "
        "scans would take counts once."
    ),
)
