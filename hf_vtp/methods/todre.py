"""ToDRE: greedily the token least similar to the chosen ones.

Paper: arXiv:2505.18757. No code was released; compared in November 2026 with its formulas written anew: the
same tokens. It chooses among tokens behind the projector; inside a tower, and where there is no language
model, among hidden states.
"""

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .selectors import register_selector
from .selectors.top_k import highest_by
from .table import register_method


@register_selector("least_similar", needs=("projected",), paper="ToDRE (arXiv:2505.18757)")
def least_similar(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """Greedily the token with the least sum of cosines to the chosen; first the one with the highest score.

    Cosines of the projected tokens, of hidden states where no projector comes next. Of tokens with the same
    score the first is the one with the least sum to all. `num_keep` steps of O(N·D). Returns [B, K].
    """
    unit = tokens.unit_projected_states()
    to_all = (unit @ unit.sum(dim=1).unsqueeze(-1)).squeeze(-1)  # [B, N]
    chosen = highest_by(scores, -to_all, 1)  # [B, 1]
    total, keep = torch.zeros_like(to_all), [chosen]
    taken = torch.zeros_like(scores, dtype=torch.bool)
    for _ in range(tokens.num_keep - 1):
        taken = taken.scatter(1, chosen, True)
        total = total + (unit @ take(unit, chosen).transpose(1, 2)).squeeze(-1)
        chosen = total.masked_fill(taken, float("inf")).argmin(dim=-1, keepdim=True)
        keep.append(chosen)
    return torch.sort(torch.cat(keep, dim=1), dim=1).values


register_method(
    "todre",
    scorer="cls_attention",
    selector="least_similar",
    merger="drop",
    summary="from the token that [CLS] attends to most, greedily the one least similar to the chosen",
    paper="ToDRE (arXiv:2505.18757)",
    layers="output",
    after_features={"scorer": "equal"},  # no queries and keys are there
)
