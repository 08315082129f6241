"""A count that follows how concentrated attention is."""

from torch import Tensor

from ...pruning.ragged import best, valid_scores
from ...pruning.tokens import VisionTokens
from . import register_selector


@register_selector("entropy", needs=("attention",), keep_ratio="target", paper="FlowCut (arXiv:2505.19536)")
def entropy(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The highest scores; the more concentrated attention is, the more tokens leave at a stage.

    (n - target) / √(layers to the last stage) · (1 - (H / log n)²) of an image's n tokens leave, rounded and
    never below none, H the entropy of the attention of [CLS] to the tokens (received attention without one),
    mean over the heads and scaled to sum to one. The last stage leaves the target, so that `keep_ratio` holds
    exactly at the end. Returns [B, K], padded with -1.
    """
    _, have = valid_scores(scores, tokens)
    if tokens.remaining == 0:
        return best(scores, have.clamp(max=tokens.target), tokens)
    chance = tokens.salience().clamp(min=0)
    if tokens.valid is not None:
        chance = chance * tokens.valid
    chance = chance / chance.sum(dim=1, keepdim=True).clamp(min=1e-12)
    spread = -(chance * chance.clamp(min=1e-12).log()).sum(dim=1) / have.clamp(min=2).log()
    leave = (have - tokens.target).clamp(min=0) / tokens.remaining**0.5 * (1 - spread.square()).clamp(min=0)
    return best(scores, have - leave.round().long(), tokens)
