"""FoPru: the most attended tokens stay (`fopru_rank`), or the most attended rows of the image (`fopru_row`).

Paper: arXiv:2411.14164. No released code was compared; the loops in tests/references are the reference.
"""

from torch import Tensor

from ..pruning.similarity import group_sum, ranks
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .selectors.top_k import highest_by
from .table import register_method


@register_selector("image_rows", paper="FoPru (arXiv:2411.14164)")
def image_rows(scores: Tensor, tokens: VisionTokens) -> Tensor:
    """The rows of the image with the highest sums of scores; of the last row that fits in part, its highest.

    Of rows with equal sums the upper one goes first; a frame has rows of its own. Returns [B, K].
    """
    frames, rows, columns = tokens.grid
    row = tokens.place() // columns  # [B, N]
    sums = group_sum(scores.unsqueeze(-1), row, frames * rows).squeeze(-1)  # [B, rows]
    return highest_by(-ranks(sums).gather(1, row).float(), scores, tokens.num_keep)


register_method(
    "fopru_rank",
    scorer="received_attention",
    selector="top_k",
    merger="drop",
    summary="the most attended tokens stay",
    paper="FoPru (arXiv:2411.14164)",
    layers="output",
)

register_method(
    "fopru_row",
    scorer="received_attention",
    selector="image_rows",
    merger="drop",
    summary="the most attended rows of the image stay",
    paper="FoPru (arXiv:2411.14164)",
    layers="output",
)
