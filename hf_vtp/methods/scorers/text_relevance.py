"""Likeness to the prompt."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...pruning.tokens import VisionTokens
from . import register_scorer

ROUNDING = 1e-6  # cosines closer than this are alike


@register_scorer("text_relevance", needs=("text",), paper="CDPruner (arXiv:2506.10967)")
def text_relevance(tokens: VisionTokens) -> Tensor:
    """Cosine of a token with the mean embedding of the prompt's text, min-max scaled to [0, 1] in an image.

    In the language model's space, into which its own projector or merger brings the token (the paper takes
    CLIP's text encoder, which these models do not carry). Exact after the tower; a layer further up is read
    as if it were the last. A half for every token where all are alike (within 1e-6, since scaling would make
    a ranking of rounding) or there is no text. Returns [B, N].
    """
    scores, low, high = likeness_to_text(tokens)
    return torch.where(high - low > ROUNDING, (scores - low) / (high - low).clamp(min=1e-12), 0.5)


def likeness_to_text(tokens: VisionTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine of a token with the mean embedding of the text, [B, N], and the ends of its range, [B, 1]."""
    valid = tokens.text_valid.unsqueeze(-1)
    text = normalize((tokens.text.float() * valid).sum(dim=1), dim=-1)  # [B, D']
    scores = (tokens.unit_joint_states() @ text.unsqueeze(-1)).squeeze(-1)
    valid = torch.ones_like(scores, dtype=torch.bool) if tokens.valid is None else tokens.valid
    low = scores.where(valid, float("inf")).amin(dim=1, keepdim=True)
    return scores, low, scores.where(valid, float("-inf")).amax(dim=1, keepdim=True)
