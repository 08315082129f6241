"""Information flow, accumulated over the layers so far."""

from typing import Annotated

from torch import Tensor
from torch.linalg import vector_norm

from ...pruning.tokens import VisionTokens
from . import register_scorer


def every_layer(layer: int, num_layers: int, num_prefix_tokens: int, **options) -> list[int]:
    return list(range(layer + 1))


def of_layer(tokens: VisionTokens, *, momentum: Annotated[float, (0.0, 1.0)] = 0.5) -> Tensor:
    """(attention + likeness) · ‖v‖₁ of one layer, [B, N].

    Attention of [CLS] to the token and its cosine with [CLS] (not below 0), each scaled to sum to one over
    the tokens; v and the cosine are of the values of all heads side by side. Of a merge unit the mean over
    its patches. Without a [CLS], received attention · ‖v‖₁, as published for Qwen2-VL.
    """
    value = tokens.value.float()  # [B, H, N·M, d]
    strength = tokens.per_token(vector_norm(value, ord=1, dim=(1, 3)))  # [B, N]
    relation = tokens.salience()
    relation = relation / relation.sum(dim=1, keepdim=True).clamp(min=1e-12)
    if tokens.num_prefix_tokens:
        cls = tokens.full_value[:, :, 0].float()  # [B, H, d]
        product = (value @ cls.unsqueeze(-1)).sum(dim=1).squeeze(-1)  # [B, N·M]
        length = vector_norm(value, dim=(1, 3)) * vector_norm(cls, dim=(1, 2)).unsqueeze(1)
        likeness = tokens.per_token(product / length.clamp(min=1e-12)).clamp(min=0)
        if tokens.valid is not None:
            likeness = likeness * tokens.valid
        relation = relation + likeness / likeness.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return relation * strength


@register_scorer(
    "flow",
    needs=("attention", "value"),
    paper="FlowCut (arXiv:2505.19536)",
    watches=every_layer,
    observe=of_layer,
)
def flow(tokens: VisionTokens, *, momentum: Annotated[float, (0.0, 1.0)] = 0.5) -> Tensor:
    """c ← momentum · c + (1 - momentum) · s over all layers so far, s what a layer says of the token.

    It begins with the s of the first layer. s = (attention of [CLS] + cosine with [CLS]) · ‖v‖₁, the first
    two scaled to sum to one; without a [CLS], attention received · ‖v‖₁. Returns [B, N].
    """
    layers = [tokens.seen[layer] for layer in sorted(tokens.seen) if layer <= tokens.layer]
    score = layers[0]
    for s in layers[1:]:
        score = momentum * score + (1 - momentum) * s
    return score
