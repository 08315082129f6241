"""Dynamic Token Pruning: layer after layer, tokens whose hidden state has a small norm leave; the count
follows the image.

Source: Dynamic Token Pruning (ECE1512 report, 2024). No released code was compared; the loops in
tests/references are the reference.
"""

from math import isfinite

import torch
from torch import Tensor

from ..pruning.ragged import best
from ..pruning.tokens import VisionTokens
from .layers import every_layer
from .selectors import register_selector
from .table import register_method


@register_selector("threshold", keep_ratio="target", paper="Dynamic Token Pruning (ECE1512 report, 2024)")
def threshold(
    scores: Tensor, tokens: VisionTokens, *, at: float | None = None, deviations: float | None = None
) -> Tensor:
    """Every token whose score lies above a threshold; the count follows the image.

    The threshold is `at`, if that is given; else mean + c · standard deviation of the image's scores with c =
    `deviations`; and if neither is given, the c that leaves the share `keep_ratio` of normally distributed
    scores, which makes it the target of the mean count (a share of one keeps all). The deviation is the root
    of the mean square, in float64: of equal scores none lies above their mean. `min_keep` and `max_keep`
    bound the count. Returns [B, K], padded with -1.
    """
    valid = torch.ones_like(scores, dtype=torch.bool) if tokens.valid is None else tokens.valid
    exact = scores
    if at is None:
        exact = scores.double()
        if deviations is None:
            share = torch.tensor(1 - tokens.share, dtype=torch.float64)
            deviations = float(torch.special.ndtri(share))
        count = valid.sum(dim=1, keepdim=True)
        mean = (exact * valid).sum(dim=1, keepdim=True) / count
        deviation = ((exact - mean).square() * valid).sum(dim=1, keepdim=True).div(count).sqrt()
        # infinitely many deviations, also of equal scores, are everything or nothing
        at = mean + deviations * deviation if isfinite(deviations) else deviations
    return best(scores, ((exact > at) & valid).sum(dim=1), tokens)


register_method(
    "dynamic",
    scorer="token_norm",
    selector="threshold",
    merger="drop",
    summary="layer after layer, tokens with a small norm leave; the count follows the image",
    paper="Dynamic Token Pruning (ECE1512 report, 2024)",
    layers=every_layer,
)
