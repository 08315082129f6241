"""Token Transforming: the most attended tokens become mixtures of all.

Paper: arXiv:2506.05709. No released code was compared; the loops in tests/references are the reference.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.tokens import VisionTokens, row_blocks, take
from .layers import at
from .mergers import register_merger
from .table import register_method


@register_merger("many_to_many", paper="Token Transforming (arXiv:2506.05709)")
def many_to_many(
    tokens: VisionTokens, keep: Tensor, *, temperature: Annotated[float, (1e-3, 100.0)] = 0.05
) -> tuple[Tensor, None, None]:
    """Kept rows of softmax(cosine / temperature), each of which sums to one, times all tokens.

    A token that stands for several counts as several. Returns [B, K, M·D].
    """
    unit = tokens.unit_hidden_states().detach()
    weights = tokens.weights().log().unsqueeze(1)  # [B, 1, N]
    content, merged = tokens.content.float(), []
    for i, j in row_blocks(keep.shape[1], unit.shape[1]):
        similar = take(unit, keep[:, i:j]) @ unit.transpose(1, 2)
        merged.append((similar / temperature + weights).softmax(dim=-1) @ content)
    return torch.cat(merged, dim=1).to(tokens.content.dtype), None, None


register_method(
    "token_transforming",
    scorer="received_attention",
    selector="top_k",
    merger="many_to_many",
    summary="the most attended tokens become mixtures of all",
    paper="Token Transforming (arXiv:2506.05709)",
    layers=at(1 / 4, 2 / 4, 3 / 4),
)
