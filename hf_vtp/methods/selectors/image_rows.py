"""Whole rows of the image."""

from torch import Tensor

from ...pruning.similarity import group_sum, ranks
from ...pruning.tokens import VisionTokens
from . import register_selector
from .top_k import highest_by


@register_selector("image_rows", paper="FoPru (arXiv:2411.14164)")
def image_rows(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The rows of the image with the highest sums of scores; of the last row that fits in part, its highest.

    Of rows with equal sums the upper one goes first; a frame has rows of its own. Returns [B, K].
    """
    frames, rows, columns = tokens.grid
    row = tokens.place() // columns  # [B, N]
    sums = group_sum(scores.unsqueeze(-1), row, frames * rows).squeeze(-1)  # [B, rows]
    return highest_by(-ranks(sums).gather(1, row).float(), scores, tokens.num_keep)
