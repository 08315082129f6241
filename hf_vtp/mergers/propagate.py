"""What leaves is passed on to its neighbours."""

from typing import Annotated

import torch
from torch import Tensor

from ..similarity import Cosines
from ..tokens import VisionTokens, take
from . import register_merger
from .knn_weighted import top_mask


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
    cosines = Cosines(tokens.unit_hidden_states().detach())
    _, rows, columns = tokens.grid
    place = tokens.place()
    frame, row, column = place // (rows * columns), place // columns % rows, place % columns
    every = torch.arange(n, device=keep.device)
    left = torch.ones(b, n, device=keep.device).scatter(1, keep, 0.0)
    passed = []
    for i, j in cosines.blocks:
        own = every[i:j, None] == every
        touch = frame[:, i:j, None] == frame[:, None]
        touch = touch & ((row[:, i:j, None] - row[:, None]).abs() <= 1)
        touch = touch & ((column[:, i:j, None] - column[:, None]).abs() <= 1)
        alike = top_mask(cosines.rows(i, j).masked_fill(own, -2.0), min(neighbours, n - 1))
        edges = ((touch | alike) & ~own).float()
        weight = edges / edges.sum(dim=-1, keepdim=True)
        passed.append((weight * left.unsqueeze(1)) @ content)
    merged = take(content + alpha * torch.cat(passed, dim=1), keep)
    return merged.to(tokens.content.dtype), None, None
