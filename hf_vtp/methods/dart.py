"""DART: a few tokens with large norms of keys, and what resembles them least.

Paper: arXiv:2502.11494. Compared with the port of the authors' code in ModelTC/LightCompress,
llmc/compression/token_reduction/dart.py, commit 9701d035, in November 2026: other tokens, for the reasons
that `differs` gives.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .selectors import register_selector
from .selectors.top_k import highest, highest_by
from .table import register_method


@register_selector("pivots", paper="DART (arXiv:2502.11494)")
def pivots(scores: Tensor, tokens: VisionTokens, *, pivots: Annotated[int, range(1, 4097)] = 8) -> Tensor:
    """The highest scores are pivots; with them stay the tokens least similar to the pivot they resemble most.

    Cosine of the hidden states. At most half of the kept are pivots, at least one. The paper takes the least
    similar tokens of each pivot in turn. Returns [B, K].
    """
    unit = tokens.unit_hidden_states()
    chosen = highest(scores, max(1, min(pivots, tokens.num_keep // 2)))
    closest = (unit @ take(unit, chosen).transpose(1, 2)).amax(dim=-1)  # [B, N]
    return highest_by(torch.zeros_like(scores).scatter(1, chosen, 1.0), -closest, tokens.num_keep)


register_method(
    "dart",
    scorer="qk_norm",
    selector="pivots",
    merger="drop",
    summary="a few tokens with large K norms, and what resembles them least",
    paper="DART (arXiv:2502.11494)",
    layers="output",
    differs=(
        "Tokens are ranked once by their closest pivot, as released pivots take turns; norms are L2 per "
        "head, as released L1 of all heads; and there are 8 image pivots, as released 4 and 4 of the text."
    ),
)
