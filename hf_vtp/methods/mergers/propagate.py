"""What leaves is passed on to its neighbours."""

from typing import Annotated

import torch
from torch import Tensor

from ...pruning.similarity import top_mask
from ...pruning.tokens import VisionTokens, row_blocks, take
from . import register_merger


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
