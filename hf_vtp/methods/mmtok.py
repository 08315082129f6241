"""MMTok: greedily the token that adds most to the coverage of the prompt and of the image.

Paper: arXiv:2508.18264. Compared with Ironieser/MMTok, mmtok/core/semantic_selector.py, commit d1522cda, in
November 2026: the same tokens. Where no tower's layers are seen the image is covered in the space of the
features, which lie behind the projector.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.covering import most_covering
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .table import register_method


@register_selector("max_coverage", needs=("text",), paper="MMTok (arXiv:2508.18264)", limit=4096)
def max_coverage(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    alpha: Annotated[float, (0.0, 100.0)] = 0.5,
    text_temperature: Annotated[float, (1e-3, 100.0)] | None = None,
    image_temperature: Annotated[float, (1e-3, 100.0)] = 0.2,
) -> Tensor:
    """Greedily the token that adds most to the coverage of the prompt's text and of the image's tokens.

    The gain is Σ_rows max(0, M_rj - cover_r) over M = [P; alpha·Q]: P = softmax(TVᵀ / text_temperature) / m
    for m text tokens T and the n tokens V in the language model's space, Q = softmax(HHᵀ / image_temperature)
    / n for their hidden states H, all of length one. A `text_temperature` of None is the released .02 of
    LLaVA and, where a token is a merge unit, .01 of Qwen2.5-VL. Scores are not looked at. `num_keep` steps of
    O(N·(N + m)). Returns [B, K].
    """
    if text_temperature is None:
        text_temperature = 0.02 if tokens.patches is None else 0.01
    unit, vision = tokens.unit_hidden_states(), tokens.unit_joint_states()
    text = torch.nn.functional.normalize(tokens.text.float(), dim=-1)
    to_text = (text @ vision.transpose(1, 2) / text_temperature).softmax(dim=-1)
    words = tokens.text_valid.sum(dim=1)[:, None, None].clamp(min=1)
    to_text = to_text * tokens.text_valid.unsqueeze(-1) / words
    to_image = (unit @ unit.transpose(1, 2) / image_temperature).softmax(dim=-1) / unit.shape[1]
    rows = torch.cat([to_text, alpha * to_image], dim=1)  # [B, m + N, N]
    return most_covering(rows, torch.ones_like(scores), tokens.num_keep)


register_method(
    "mmtok",
    scorer="equal",
    selector="max_coverage",
    merger="drop",
    summary="greedily the token that covers most of the prompt and the image",
    paper="MMTok (arXiv:2508.18264)",
    layers="output",
)
