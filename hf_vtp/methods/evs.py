"""EVS, Efficient Video Sampling: what does not change from frame to frame leaves; the first frame stays.

Paper: arXiv:2510.14624. Compared with vLLM's vllm/multimodal/evs.py, in a copy of it in a fork of SGLang
(python/sglang/srt/multimodal/evs/evs_core.py, commit 2aff11d0), in November 2026, by reading: the same
formula, the same order of ties. There is no golden data of it.
"""

import torch
from torch import Tensor

from ..pruning.ragged import best
from ..pruning.tokens import VisionTokens, row_blocks, take
from .scorers import register_scorer
from .selectors import register_selector
from .table import register_method

NEW = 255.0  # above every dissimilarity, as in the released code


@register_scorer("frame_change", needs=("clip",), paper="Efficient Video Sampling (arXiv:2510.14624)")
def frame_change(tokens: VisionTokens) -> Tensor:
    """1 - cosine of a token and the one at its place in the frame before, of the hidden states.

    255 in the first frame, and where no token is left at that place in the frame before. Returns [B, N].
    """
    (b, n), (frames, rows, columns) = tokens.shape, tokens.grid
    if frames == 1:
        return torch.full((b, n), NEW, dtype=torch.float32, device=tokens.hidden_states.device)
    size, place = rows * columns, tokens.place()
    cells = frames * size  # one more takes the padding
    own = place if tokens.valid is None else place.where(tokens.valid, cells)
    every = torch.arange(n, device=place.device).expand(b, n)
    column = torch.full((b, cells + 1), n, device=place.device).scatter(1, own, every)
    column[:, cells] = n
    before = column.gather(1, (place - size).clamp(min=0)).where(place >= size, n)  # [B, N], n: none
    unit, change = tokens.unit_hidden_states(), []
    for i, j in row_blocks(n, unit.shape[-1]):
        other = take(unit, before[:, i:j].clamp(max=n - 1))
        change.append(1 - (unit[:, i:j] * other).sum(dim=-1))
    return torch.cat(change, dim=1).where(before < n, NEW)


@register_selector(
    "first_frame",
    needs=("clip",),
    keep_ratio="target",
    paper="Efficient Video Sampling (arXiv:2510.14624)",
)
def first_frame(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The highest scores of a whole clip, but never fewer than the tokens of its first frame.

    Where scores are those of `frame_change` that whole frame stays, so an image loses nothing. `min_keep` and
    `max_keep` bound the count. Returns [B, K], padded with -1.
    """
    valid = torch.ones_like(scores, dtype=torch.bool) if tokens.valid is None else tokens.valid
    first = (tokens.place() < tokens.grid[1] * tokens.grid[2]) & valid
    target = (valid.sum(dim=1).double() * tokens.share).round().long()
    return best(scores, target.maximum(first.sum(dim=1)), tokens)


register_method(
    "evs",
    scorer="frame_change",
    selector="first_frame",
    merger="drop",
    summary="videos: what does not change from frame to frame leaves; images, and first frames, stay",
    paper="Efficient Video Sampling (arXiv:2510.14624)",
    layers="output",
    differs=(
        "Compares the features of the tower, as released those behind the projector, and rounds the count, "
        "as released downwards; it acts in towers that read a clip as one (Qwen2-VL and its like)."
    ),
)
