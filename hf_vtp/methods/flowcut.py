"""FlowCut: information flow, accumulated over the layers; the pace follows the entropy of attention.

Paper: arXiv:2505.19536. Compared with TungChintao/FlowCut, flowcut/modeling_clip_flowcut.py and
flowcut/utils_flowcut.py, commit a2ecd247, in November 2026: the same scores, tokens and layers. The paper
writes a cosine of values where that code has a softmax of their products.
"""

from typing import Annotated

from torch import Tensor
from torch.linalg import vector_norm

from ..pruning.ragged import best, valid_scores
from ..pruning.tokens import VisionTokens
from .layers import every_other_layer
from .scorers import register_scorer
from .selectors import register_selector
from .table import register_method


def layers_so_far(layer: int, num_layers: int, num_prefix_tokens: int, **options) -> list[int]:
    return list(range(layer + 1))


def cls_likeness(tokens: VisionTokens) -> Tensor:
    """softmax(v_cls · v) over all tokens, prefix included, mean over the heads, [B, N]."""
    value, prefix = tokens.full_value.float(), tokens.num_prefix_tokens
    logits = (value @ value[:, :, 0].unsqueeze(-1)).squeeze(-1)  # [B, H, P + N·M]
    if tokens.valid is not None:
        logits = logits.masked_fill(~tokens.valid_patches().unsqueeze(1), float("-inf"))
    return tokens.per_token(logits.softmax(dim=-1).mean(dim=1)[:, prefix:])


def of_layer(tokens: VisionTokens, *, momentum: Annotated[float, (0.0, 1.0)] = 0.5) -> Tensor:
    """(attention + likeness) · ‖v‖₁ of one layer, [B, N].

    Attention of [CLS] to the token, and softmax(v_cls · v) over all tokens, mean over the heads, each scaled
    to sum to one over the patches; ‖v‖₁ is of the heads' mean value. Of a merge unit the mean over its
    patches. Without a [CLS], received attention · ‖v‖₁, as published for Qwen2-VL.
    """
    relation = tokens.salience()
    relation = relation / relation.sum(dim=1, keepdim=True).clamp(min=1e-12)
    if tokens.num_prefix_tokens:
        likeness = cls_likeness(tokens)
        relation = relation + likeness / likeness.sum(dim=1, keepdim=True).clamp(min=1e-12)
    strength = vector_norm(tokens.value.float().mean(dim=1), ord=1, dim=-1)  # [B, N·M]
    return relation * tokens.per_token(strength)


@register_scorer(
    "flow",
    needs=("attention", "value"),
    paper="FlowCut (arXiv:2505.19536)",
    watches=layers_so_far,
    observe=of_layer,
)
def flow(tokens: VisionTokens, *, momentum: Annotated[float, (0.0, 1.0)] = 0.5) -> Tensor:
    """c ← momentum · c + (1 - momentum) · s over all layers so far, s what a layer says of the token.

    It begins with the s of the first layer. s = (attention of [CLS] + softmax(v_cls · v)) · ‖v‖₁, the first
    two scaled to sum to one; without a [CLS], attention received · ‖v‖₁. Returns [B, N].
    """
    layers = [tokens.seen[layer] for layer in sorted(tokens.seen) if layer <= tokens.layer]
    score = layers[0]
    for s in layers[1:]:
        score = momentum * score + (1 - momentum) * s
    return score


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


register_method(
    "flowcut",
    scorer="flow",
    selector="entropy",
    merger="drop",
    summary="information flow, accumulated over the layers; the pace follows the entropy of attention",
    paper="FlowCut (arXiv:2505.19536)",
    layers=every_other_layer,
)
