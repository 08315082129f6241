"""CDPruner: a diverse set by a determinantal point process, weighted by likeness to the prompt.

Paper: arXiv:2506.10967; the greedy search is of arXiv:1709.05135. Compared with Theia-4869/CDPruner,
llava/model/llava_arch.py, commit 9541616c, in November 2026: the same tokens, given the same relevance. Like
that code it compares tokens behind the projector; inside a tower, hidden states.
"""

import torch
from torch import Tensor

from ..pruning.similarity import relevance
from ..pruning.tokens import VisionTokens, take
from .selectors import register_selector
from .table import register_method

NOTHING = 1e-5  # a gain below this share of the largest is rounding


@register_selector(
    "dpp",
    needs=("projected",),
    paper="CDPruner (arXiv:2506.10967); fast greedy MAP (arXiv:1709.05135)",
    limit=8192,
)
def dpp(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """Greedily the token that raises the determinant of L most, L_ij = r_i · cos_ij · r_j, r the score.

    Cosines of the projected tokens, of hidden states where no projector comes next; cos_ii is one, also of a
    token of zeros. Scores below 0 count as 0, as ones where an image has none above. A gain below 1e-5 of the
    largest diagonal entry counts as none, and among those the lower index goes first. `num_keep` steps with
    Cholesky updates, O(N·K) each. Returns [B, K].
    """
    unit, r = tokens.unit_projected_states(), relevance(scores)
    gain = r.square()  # [B, N] what the squared volume would be multiplied by
    least = NOTHING * gain.amax(dim=1, keepdim=True)
    factors = unit.new_zeros(unit.shape[0], tokens.num_keep, unit.shape[1])  # rows of the Cholesky factor
    taken, keep = torch.zeros_like(scores, dtype=torch.bool), []
    for step in range(tokens.num_keep):
        chosen = gain.where(gain > least, 0.0).masked_fill(taken, -1.0).argmax(dim=-1)[:, None]  # [B, 1]
        keep.append(chosen)
        taken = taken.scatter(1, chosen, True)
        own = gain.gather(1, chosen)
        row = (unit @ take(unit, chosen).transpose(1, 2)).squeeze(-1) * r * r.gather(1, chosen)
        before = factors[:, :step]
        there = before.gather(2, chosen.unsqueeze(1).expand(-1, step, -1))  # [B, step, 1]
        row = row - (there.transpose(1, 2) @ before).squeeze(1)
        row = torch.where(own > least, row * own.clamp(min=1e-30).rsqrt(), 0.0)
        factors[:, step] = row
        gain = gain - row.square()
    return torch.sort(torch.cat(keep, dim=1), dim=1).values


register_method(
    "cdpruner",
    scorer="text_relevance",
    selector="dpp",
    merger="drop",
    summary="a diverse set by a determinantal point process, weighted by likeness to the prompt",
    paper="CDPruner (arXiv:2506.10967)",
    layers="output",
    differs=(
        "Relevance is the cosine with the prompt in the language model's space, since these models carry no "
        "CLIP text encoder."
    ),
)
