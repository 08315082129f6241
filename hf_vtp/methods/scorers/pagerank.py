"""PageRank on the attention graph."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


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
