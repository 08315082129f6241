"""The highest scores and a grid."""

from typing import Annotated

from torch import Tensor

from ...pruning.tokens import VisionTokens
from . import register_selector
from .top_k import highest_by


@register_selector("grid_union", paper="FEATHER (arXiv:2412.13180)")
def grid_union(scores: Tensor, tokens: VisionTokens, *, stride: Annotated[int, range(1, 65)] = 3) -> Tensor:
    """Every token on a grid with that stride, then the highest scores; of too large a grid its highest.

    The grid is of rows and columns 0, stride, 2 · stride and so on of each frame. Returns [B, K].
    """
    _, rows, columns = tokens.grid
    place = tokens.place()
    on_grid = (place // columns % rows % stride == 0) & (place % columns % stride == 0)
    return highest_by(on_grid.float(), scores, tokens.num_keep)
