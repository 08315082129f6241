"""ToDRE: greedily the token least similar to the chosen ones.

Paper: arXiv:2505.18757. No code was released; compared in November 2026 with its formulas written anew: other
tokens, for the reasons that `differs` gives.
"""

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .selectors import register_selector
from .table import register_method


@register_selector("least_similar", paper="ToDRE (arXiv:2505.18757)")
def least_similar(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """Greedily the token with the least sum of cosines to the chosen; first the one with the least to all.

    Scores are not looked at. `num_keep` steps of O(N·D). Returns [B, K].
    """
    unit = tokens.unit_hidden_states()
    similarity = (unit @ unit.sum(dim=1).unsqueeze(-1)).squeeze(-1)  # [B, N]
    total, keep = torch.zeros_like(similarity), []
    taken = torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(tokens.num_keep):
        keep.append(similarity.masked_fill(taken, float("inf")).argmin(dim=-1))
        taken = taken.scatter(1, keep[-1][:, None], True)
        total = total + (unit @ take(unit, keep[-1][:, None]).transpose(1, 2)).squeeze(-1)
        similarity = total
    return torch.sort(torch.stack(keep, dim=1), dim=1).values


register_method(
    "todre",
    scorer="equal",
    selector="least_similar",
    merger="drop",
    summary="greedily the token least similar to the chosen ones",
    paper="ToDRE (arXiv:2505.18757)",
    layers="output",
    differs=(
        "The first token is the least similar to all, in the paper the most attended by [CLS], and the "
        "features are the tower's, in the paper those behind the projector."
    ),
)
