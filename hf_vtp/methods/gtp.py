"""GTP-ViT: what leaves after every layer is passed on to its neighbours, in the image and in content.

Paper: arXiv:2311.03035. Compared with Ackesnal/GTP-ViT, models_v3.py, commit 97a11781, in November 2026: the
same tokens at the first stage, other values.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.similarity import top_mask
from ..pruning.tokens import VisionTokens, row_blocks, take
from .layers import every_layer
from .mergers import register_merger
from .scorers import register_scorer
from .table import register_method


@register_scorer("own_and_received", needs=("attention",), paper="GTP-ViT (arXiv:2311.03035)")
def own_and_received(tokens: VisionTokens) -> Tensor:
    """A token's attention to itself times the attention it receives from all, each the mean over the heads.

    The first is large where a token cannot be made from others, the second, a sum over the queries, where
    others are made from it. Of a merge unit each is the mean over its patches. Returns [B, N].
    """
    own, received = [], 0.0
    for start, stop, rows in tokens.attention_blocks():
        mean = rows.mean(dim=1)  # [B, stop - start, P + N·M]
        own.append(mean[:, :, start:stop].diagonal(dim1=1, dim2=2).clone())  # a view would hold it all
        received = received + mean.sum(dim=1)
    scores = (tokens.per_token(x[:, tokens.num_prefix_tokens :]) for x in (torch.cat(own, dim=1), received))
    return next(scores) * next(scores)


@register_merger("propagate", paper="GTP-ViT (arXiv:2311.03035)")
def propagate(
    tokens: VisionTokens,
    keep: Tensor,
    *,
    alpha: Annotated[float, (0.0, 10.0)] = 0.1,
    neighbours: Annotated[int, range(1, 4097)] = 8,
) -> tuple[Tensor, None, None]:
    """x_kept + alpha · W · x_left over a graph of places and of likeness.

    A token has an edge to those that touch it in its frame, corners included, and to the `neighbours` most
    similar to it (cosine of the hidden states); W is the graph with each row scaled to sum to one. The paper
    makes the graph once, from the embeddings; here it is made anew from the states of each stage. Returns [B,
    K, M·D].
    """
    (b, n), content = tokens.shape, tokens.content.float()
    if n == 1:
        return take(tokens.content, keep), None, None
    unit = tokens.unit_hidden_states().detach()
    _, rows, columns = tokens.grid
    place = tokens.place().to(torch.int32)
    where = (place // (rows * columns), place // columns % rows, place % columns)  # frame, row, column
    every = torch.arange(n, device=keep.device)
    dropped = torch.ones(b, n, dtype=torch.float32, device=keep.device).scatter(1, keep, 0.0)
    passed = []
    for i, j in row_blocks(keep.shape[1], 4 * n):  # several temporaries of a block at once
        index = keep[:, i:j]
        frame, row, column = ((take(x, index).unsqueeze(2) - x.unsqueeze(1)).abs() for x in where)
        touch = (frame == 0) & (row <= 1) & (column <= 1)
        own = index.unsqueeze(2) == every
        similar = (take(unit, index) @ unit.transpose(1, 2)).masked_fill(own, -2.0)
        edges = ((touch | top_mask(similar, min(neighbours, n - 1))) & ~own).float()
        weight = edges / edges.sum(dim=-1, keepdim=True)
        passed.append((weight * dropped.unsqueeze(1)) @ content)
    merged = take(content, keep) + alpha * torch.cat(passed, dim=1)
    return merged.to(tokens.content.dtype), None, None


register_method(
    "gtp",
    scorer="own_and_received",
    selector="top_k",
    merger="propagate",
    summary="what leaves after every layer is passed on to its neighbours",
    paper="GTP-ViT (arXiv:2311.03035)",
    layers=every_layer,
    schedule="linear",
    differs=(
        "The graph is made anew at each stage with rows that sum to one, as released once from the "
        "embeddings with symmetric normalisation."
    ),
)
