"""Zero-TPrune: PageRank on the attention graph, then what resembles a better token leaves.

Paper: arXiv:2305.17328. Its own repository, jha-lab/zerotprune, has no code. Compared in November 2026 with a
third party's reading of its weighted PageRank, without the filter of heads: the same scores but for their
scale. The rest is held against the loops in tests/references.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, take
from .layers import at
from .scorers import register_scorer
from .selectors import register_selector
from .selectors.top_k import highest
from .table import register_method


@register_scorer("pagerank", needs=("attention",), paper="Zero-TPrune (arXiv:2305.17328)")
def pagerank(
    tokens: VisionTokens,
    *,
    iterations: Annotated[int, range(1, 101)] = 5,
    least_variance: Annotated[float, (0.0, 1e6)] = 0.01,
    most_variance: Annotated[float, (0.0, 1e6)] = 0.7,
) -> Tensor:
    """s ← Aᵀs, so often, in every head from s = 1; then the root mean square over the heads that tell apart.

    A is softmax(QKᵀ/√d) of all tokens, [CLS] included; s keeps the mean one. Of a merge unit the mean over
    its patches. A head counts whose scores have a variance over the image's tokens (the mean square, not the
    sample's) within the two bounds; all do where none has. Each iteration works out the attention anew, in
    blocks of rows. Returns [B, N].
    """
    shape, device = tokens.full_query.shape[:3], tokens.full_query.device
    s = torch.ones(shape, dtype=torch.float32, device=device)  # [B, H, P + N·M]
    for _ in range(iterations):
        new = torch.zeros_like(s)
        for start, stop, rows in tokens.attention_blocks():
            new = new + (s[:, :, None, start:stop] @ rows).squeeze(2)
        s = new
    s = tokens.per_token(s[:, :, tokens.num_prefix_tokens :])  # [B, H, N]
    valid = torch.ones_like(s[:, :1]) if tokens.valid is None else tokens.valid.unsqueeze(1).float()
    count = valid.sum(dim=-1)
    mean = (s * valid).sum(dim=-1) / count  # [B, H]
    variance = ((s - mean.unsqueeze(-1)).square() * valid).sum(dim=-1) / count
    counts = (variance >= least_variance) & (variance <= most_variance)
    counts = (counts | ~counts.any(dim=1, keepdim=True)).float()
    return ((s.square() * counts.unsqueeze(-1)).sum(dim=1) / counts.sum(dim=1, keepdim=True)).sqrt()


@register_selector("unlike_ranked", needs=("key",), paper="Zero-TPrune (arXiv:2305.17328)")
def unlike_ranked(
    scores: Tensor, tokens: VisionTokens, *, by_score: Annotated[float, (0.0, 1.0)] = 0.5
) -> Tensor:
    """Part of those to leave have the lowest scores; the others resemble a token that ranks higher.

    After the share `by_score` has left, the lower half of the rest by score is compared with the upper half,
    and what is most similar to one of it leaves (cosine of the mean keys; of equally similar ones the lowest
    score). An odd one out belongs to the upper half. More leave by score where half of the rest would not
    suffice. Returns [B, K].
    """
    b, n = scores.shape
    leave = n - tokens.num_keep
    lowest = max(round(by_score * leave), n - 2 * tokens.num_keep)
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, : n - lowest]
    upper, lower = order.tensor_split([(order.shape[1] + 1) // 2], dim=1)
    unit = tokens.unit_keys()
    similar = (take(unit, lower) @ take(unit, upper).transpose(1, 2)).amax(dim=-1)  # [B, lower half]
    stays = lower.gather(1, highest(-similar, lower.shape[1] - (leave - lowest)))
    return torch.sort(torch.cat([upper, stays], dim=1), dim=1).values


register_method(
    "zero_tprune",
    scorer="pagerank",
    selector="unlike_ranked",
    merger="drop",
    summary="PageRank on the attention graph, then what resembles a better token leaves",
    paper="Zero-TPrune (arXiv:2305.17328)",
    layers=at(1 / 12, 3 / 12, 6 / 12, 9 / 12, 11 / 12),
)
