"""How much a few tokens attend to each."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_scorer


@register_scorer(
    "importance", needs=("attention",), paper="this project; [CLS]: FasterVLM (arXiv:2412.01818)"
)
def importance(tokens: VisionTokens, *, queries: Annotated[int, range(1, 1 << 20)] = 64) -> Tensor:
    """Attention of [CLS] to each token, or of about so many evenly spaced tokens, mean over the heads.

    The second where there is no [CLS]: a sample of the attention that a token receives, in O(N) where all of
    it is O(N²). Of a merge unit the mean over its patches. Returns [B, N].
    """
    if tokens.num_prefix_tokens:
        return tokens.cls_attention().mean(dim=1)
    if tokens.valid is not None:
        return among_padding(tokens, queries)
    step = max(1, tokens.full_query.shape[2] // queries)
    rows = tokens.attention(slice(step // 2, None, step))  # [B, H, queries, N·M]
    return tokens.per_token(rows.mean(dim=(1, 2)))


def among_padding(tokens: VisionTokens, queries: int) -> Tensor:
    """The same where rows are padded: the sample is of each image's own tokens, as if it were alone."""
    length = tokens.valid.sum(dim=1, keepdim=True) * tokens.num_patches  # [B, 1]
    step = (length // queries).clamp(min=1)
    first, received, count = step // 2, 0.0, 0
    for start, stop, rows in tokens.attention_blocks():
        at = torch.arange(start, stop, device=rows.device)
        asked = (at >= first) & (at < length) & ((at - first) % step == 0)  # [B, rows]
        received = received + (rows * asked[:, None, :, None]).sum(dim=2)
        count = count + asked.sum(dim=1, keepdim=True)
    return tokens.per_token(received.mean(dim=1)) / count
