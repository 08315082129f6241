"""GTP-ViT: what leaves after every layer is passed on to its neighbours, in the image and in content.

Paper: arXiv:2311.03035. Compared with Ackesnal/GTP-ViT, models_v3.py, commit 97a11781 (MixedAttnMax, the best
row of its tables; graph "Mixed" with symmetric normalisation), in November 2026: the same tokens and values
at the first stage. That code makes the graph once, of the embeddings, and cuts it down.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..pruning.similarity import top_mask
from ..pruning.tokens import VisionTokens, row_blocks, take
from .layers import every_layer
from .mergers import register_merger
from .scorers import register_scorer
from .table import register_method


@register_scorer("own_and_received", needs=("attention",), paper="GTP-ViT (arXiv:2311.03035)")
def own_and_received(tokens: VisionTokens, *, over: Literal["max", "mean"] = "max") -> Tensor:
    """A token's attention to itself times the attention it receives from all, each the largest of the heads.

    The first is large where a token cannot be made from others, the second, a sum over the queries, where
    others are made from it. `over` takes their "max" or "mean" over the heads. Of a merge unit each is the
    mean over its patches. Returns [B, N].
    """
    own, received = [], 0.0
    for start, stop, rows in tokens.attention_blocks():
        own.append(rows[:, :, :, start:stop].diagonal(dim1=2, dim2=3).clone())  # a view would hold it all
        received = received + rows.sum(dim=2)  # [B, H, P + N·M]
    heads = (x[:, :, tokens.num_prefix_tokens :] for x in (torch.cat(own, dim=2), received))
    own, received = (tokens.per_token(x.amax(dim=1) if over == "max" else x.mean(dim=1)) for x in heads)
    return own * received


class Graph:
    """Which tokens pass something on to which: 1 where they touch or are alike, over √(degrees of both)."""

    def __init__(self, tokens: VisionTokens, neighbours: int):
        self.unit = tokens.unit_hidden_states().detach()
        self.neighbours = min(neighbours, tokens.shape[1] - 1)
        _, rows, columns = tokens.grid
        place = tokens.place().to(torch.int32)
        self.where = (place // (rows * columns), place // columns % rows, place % columns)

    def edges(self, index: Tensor) -> Tensor:
        """From tokens `index` [B, K] to all, 0 or 1, [B, K, N]; none to itself."""
        frame, row, column = ((take(x, index).unsqueeze(2) - x.unsqueeze(1)).abs() for x in self.where)
        touch = (frame == 0) & (row <= 1) & (column <= 1)
        own = index.unsqueeze(2) == torch.arange(self.unit.shape[1], device=index.device)
        similar = (take(self.unit, index) @ self.unit.transpose(1, 2)).masked_fill(own, -2.0)
        return ((touch | top_mask(similar, self.neighbours)) & ~own).float()


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
    similar to it (cosine of the hidden states); W_ij is the edge from i to j over √(d_i · d_j), d the number
    of edges that a token has. The released code makes the graph once, from the embeddings; here it is made
    anew from the states of each stage. Returns [B, K, M·D].
    """
    (b, n), kept = tokens.shape, keep.shape[1]
    if n in (1, kept):
        return take(tokens.content, keep), None, None
    graph, content = Graph(tokens, neighbours), tokens.content.float()
    stays = torch.zeros(b, n, dtype=torch.float32, device=keep.device).scatter(1, keep, 1.0)
    left = torch.sort(stays, dim=1, stable=True).indices[:, : n - kept]
    blocks = [left[:, i:j] for i, j in row_blocks(n - kept, 4 * n)]  # several temporaries of a block at once
    degree = torch.cat([graph.edges(index).sum(dim=2) for index in blocks], dim=1)
    scaled = take(content, left) * degree.rsqrt().unsqueeze(2)  # [B, N - K, M·D]
    passed = []
    for i, j in row_blocks(kept, 4 * n):
        edges = graph.edges(keep[:, i:j])
        to_left = edges.gather(2, left.unsqueeze(1).expand(-1, j - i, -1))
        passed.append((to_left @ scaled) * edges.sum(dim=2, keepdim=True).rsqrt())
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
    differs="The graph is made anew of the states of each stage, as released once of the embeddings.",
)
