"""VFlowOpt: what the well attended tokens attend to stays; what leaves is merged in the cells of a grid.

Paper: arXiv:2508.05211 (ICCV 2025). Compared with sihany077/VFlowOpt, src/LLaVA-OneVision (siglip_encoder.py,
llava_qwen_training_free.py), commit 7a266087, in November 2026, by reading; no golden data. The paper finds
`sensitivity`, `cell` and the ratios for each model by a search; none of its values are published. Here
`tune(model, images, target, methods=["vflowopt"], scorer_options=…)` compares values of theirs.
"""

from typing import Annotated

import torch
from torch import Tensor

from ..pruning.similarity import group_mean, group_sum, groups_or_nearest, rank_within
from ..pruning.tokens import VisionTokens, row_blocks, take
from .mergers import register_merger
from .scorers import register_scorer
from .selectors import register_selector
from .selectors.top_k import highest, highest_by
from .table import register_method

ROUNDING = 1e-5  # a token attended to by less than this share above the bound is not above it


@register_scorer("calibrated_attention", needs=("attention",), paper="VFlowOpt (arXiv:2508.05211)")
def calibrated_attention(tokens: VisionTokens, *, sensitivity: Annotated[float, (0.0, 1e6)] = 7.0) -> Tensor:
    """Attention that a token receives from the well attended tokens alone, mean over the heads.

    Well attended are those that receive, from all tokens of the image, more than `sensitivity` times the
    mean; where none does, all tokens count. [CLS] counts as none. Of a merge unit the mean over its patches.
    Large images have their attention worked out twice, in blocks of rows. Returns [B, N].
    """
    (b, _), length = tokens.shape, tokens.full_query.shape[2]
    prefix, device = tokens.num_prefix_tokens, tokens.full_query.device
    every = torch.ones(b, length, dtype=torch.float32, device=device)
    every[:, :prefix] = 0
    attention = Attention(tokens)
    received = attention.of(every)
    count = length - prefix
    if tokens.valid is not None:  # padding receives nothing
        count = tokens.valid.sum(dim=1, keepdim=True) * tokens.num_patches
    mean = received[:, prefix:].sum(dim=1, keepdim=True) / count
    well = received > sensitivity * (1 + ROUNDING) * mean
    well[:, :prefix] = False
    well = torch.where(well.any(dim=1, keepdim=True), well.float(), every)
    return tokens.per_token(attention.of(well)[:, prefix:])


class Attention:
    """The attention of all tokens, mean over the heads; kept only where one block holds it."""

    def __init__(self, tokens: VisionTokens):
        self.tokens, length = tokens, tokens.full_query.shape[2]
        self.whole = None
        if len(list(row_blocks(length, length))) == 1:
            self.whole = torch.cat([rows.mean(dim=1) for *_, rows in tokens.attention_blocks()], dim=1)

    def of(self, weights: Tensor) -> Tensor:
        """Σ_i weights_i · A_ij; weights and result [B, P + N·M]."""
        if self.whole is not None:
            return (weights.unsqueeze(1) @ self.whole).squeeze(1)
        total = 0.0
        for start, stop, rows in self.tokens.attention_blocks():
            own = weights[:, None, None, start:stop]
            total = total + (own @ rows).squeeze(2).mean(dim=1)
        return total


@register_selector("recycled_cells", paper="VFlowOpt (arXiv:2508.05211)")
def recycled_cells(
    scores: Tensor, tokens: VisionTokens, *, cell: Annotated[int, range(1, 1025)] = 8
) -> tuple[Tensor, Tensor]:
    """The highest scores, and of each cell of a grid the highest of those that leave, for the cell's rest.

    Cells are `cell` tokens wide and high, in each frame, and have a place each, at most all but one of
    `num_keep`; where they are too many those whose best is highest have one, and a cell in which nothing
    leaves gives its place to the highest of the rest. Returns [B, K], and the group of every token [B, N],
    -1 for those that leave from a cell without a place.
    """
    (b, n), (frames, rows, columns) = tokens.shape, tokens.grid
    down, across = -(-rows // cell), -(-columns // cell)
    cells = frames * down * across
    recycled = min(cells, tokens.num_keep - 1)
    stays = torch.zeros_like(scores).scatter(1, highest(scores, tokens.num_keep - recycled), 1.0) > 0
    place = tokens.place()
    row, column = place // columns % rows // cell, place % columns // cell
    own = (place // (rows * columns) * down + row) * across + column  # [B, N] cell of each token
    leads = (rank_within(own, scores.masked_fill(stays, float("-inf"))) == 0) & ~stays
    order = torch.where(stays, 3.0, torch.where(leads, 2.0, 1.0))
    keep = highest_by(order, scores, tokens.num_keep)
    every = torch.arange(n, device=place.device).expand(b, n)
    leader = torch.full((b, cells + 1), n, device=place.device).scatter(1, own.where(leads, cells), every)
    leader[:, cells] = n
    group = torch.full((b, n + 1), -1, device=place.device)
    group = group.scatter(1, keep, torch.arange(tokens.num_keep, device=place.device).expand_as(keep))
    kept = group[:, :n]
    return keep, torch.where(kept >= 0, kept, group.gather(1, leader.gather(1, own)))


@register_merger("recycle", needs=("attention",), paper="VFlowOpt (arXiv:2508.05211)")
def recycle(
    tokens: VisionTokens, keep: Tensor, *, sensitivity: Annotated[float, (0.0, 1e6)] = 7.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The groups that the selector `recycled_cells` made become their mean, weighted by their scores.

    These are the scores of `calibrated_attention` with the same `sensitivity`. A group of one is its token.
    After any other selector each token that leaves joins the kept token most similar by the cosine of the
    hidden states. Returns [B, K, M·D], the group of every token [B, N], and sizes [B, K] in float32.
    """
    count = keep.shape[1]
    with torch.no_grad():
        weights = calibrated_attention(tokens, sensitivity=sensitivity).clamp(min=1e-9)
        groups = groups_or_nearest(tokens.groups, keep, tokens.unit_hidden_states)
        both = torch.stack([tokens.weights(), torch.ones_like(weights)], dim=-1)
        sizes, members = group_sum(both, groups, count).unbind(dim=-1)
    merged = group_mean(tokens.content, weights, groups, count)[0].to(tokens.content.dtype)
    return torch.where(members.unsqueeze(-1) > 1, merged, take(tokens.content, keep)), groups, sizes


register_method(
    "vflowopt",
    scorer="calibrated_attention",
    selector="recycled_cells",
    merger="recycle",
    summary="what the well attended attend to stays, what leaves is merged in the cells of a grid",
    paper="VFlowOpt (arXiv:2508.05211)",
    layers="output",
    differs=(
        "Only the first of the paper's three stages, the one before the language model; scores lack the "
        "entropy of pixels, which a method does not see here; its searched values are for the user to find "
        "with `tune`, and the count is met exactly."
    ),
)
