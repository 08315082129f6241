"""DART: a few tokens with large keys, and what resembles them least, each of the few in its turn.

Paper: arXiv:2502.11494. Compared with the port of the authors' code in ModelTC/LightCompress,
llmc/compression/token_reduction/dart.py, commit 9701d035, in November 2026: the same tokens for the same keys
and pivots. That code acts in an early layer of the language model, where half of the pivots are of the text;
where tokens leave the tower there are no keys of the text, so all pivots are of the image. Its turns follow
the order of a Python set, which is arbitrary; here the largest key comes first.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .scorers import register_scorer
from .selectors import register_selector
from .table import register_method


@register_scorer("key_size", needs=("key",), paper="DART (arXiv:2502.11494)")
def key_size(tokens: VisionTokens) -> Tensor:
    """L1 norm of the layer's keys, all heads side by side; of a merge unit the mean over its patches.

    Returns [B, N].
    """
    return tokens.per_token(tokens.key.float().abs().sum(dim=(1, 3)))


@register_selector("pivots", paper="DART (arXiv:2502.11494)")
def pivots(scores: Tensor, tokens: VisionTokens, *, pivots: Annotated[int, range(1, 4097)] = 8) -> Tensor:
    """The highest scores are pivots; from the highest on each takes the tokens least similar to it.

    Cosine of the hidden states, among what nobody has taken. At most half of the kept are pivots, at least
    one; they take equally many, of what does not divide the first one more. Returns [B, K].
    """
    unit = tokens.unit_hidden_states()
    count = max(1, min(pivots, tokens.num_keep // 2))
    chosen = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :count]  # [B, pivots]
    likeness = take(unit, chosen) @ unit.transpose(1, 2)  # [B, pivots, N]
    keep, taken = chosen, torch.zeros_like(scores, dtype=torch.bool).scatter(1, chosen, True)
    each, more = divmod(tokens.num_keep - count, count)
    for turn in range(count):
        far = likeness[:, turn].masked_fill(taken, float("inf"))
        new = torch.sort(far, dim=1, stable=True).indices[:, : each + (turn < more)]
        keep, taken = torch.cat([keep, new], dim=1), taken.scatter(1, new, True)
    return torch.sort(keep, dim=1).values


register_method(
    "dart",
    scorer="key_size",
    selector="pivots",
    merger="drop",
    summary="a few tokens with large keys, and what resembles them least",
    paper="DART (arXiv:2502.11494)",
    layers="output",
    differs=(
        "Keys are of the vision tower and all 8 pivots of the image, as released keys are of an early layer "
        "of the language model and 4 of the pivots of the text."
    ),
)
