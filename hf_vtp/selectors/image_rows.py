"""Whole rows of the image."""

import torch
from torch import Tensor

from ..tokens import VisionTokens
from . import register_selector
from .top_k import highest_by


@register_selector("image_rows", paper="FoPru (arXiv:2411.14164)")
def image_rows(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The rows of the image with the highest sums of scores; of the last row that fits in part, its highest.

    Of rows with equal sums the upper one goes first; a frame has rows of its own. Returns [B, K].
    """
    frames, rows, columns = tokens.grid
    row = tokens.place() // columns  # [B, N]
    member = row.unsqueeze(1) == torch.arange(frames * rows, device=row.device)[:, None]  # [B, rows, N]
    sums = (member.to(scores.dtype) @ scores.unsqueeze(-1)).squeeze(-1)  # [B, rows]
    rank = torch.sort(sums, dim=1, descending=True, stable=True).indices.argsort(dim=1)
    return highest_by(-rank.gather(1, row).float(), scores, tokens.num_keep)
