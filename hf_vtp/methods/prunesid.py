"""PruneSID: tokens are grouped by principal components; each group loses its repeats and keeps a share.

Paper: arXiv:2603.09480. Compared with ZhengyaoFang/PruneSID, prunesid/prunesid_qwen/modeling_qwen2_vl.py and
prunesid/prunesid_llava/clip_encoder.py, commit 390d7606, in November 2026, by reading; no golden data.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..pruning.similarity import Cosines, rank_within, ranks
from ..pruning.tokens import VisionTokens
from .selectors import register_selector
from .selectors.top_k import highest
from .table import register_method

NOTHING = 1e-10  # a squared singular value below this, or this share of the largest, is rounding


def components(states: Tensor, count: int) -> Tensor:
    """|V| of the largest `count` singular values of sigmoid(x) - mean, [B, N, count]; 0 where one is none.

    The mean is over the tokens of an image. In float64, as eigenvectors of whichever product of the matrix
    with itself is smaller.
    """
    centred = torch.sigmoid(states.float()).nan_to_num(0.5).double()
    centred = centred - centred.mean(dim=1, keepdim=True)  # [B, N, D]
    wide = centred.shape[1] < centred.shape[2]
    product = centred @ centred.transpose(1, 2) if wide else centred.transpose(1, 2) @ centred
    squares, vectors = torch.linalg.eigh(product)  # ascending
    squares, vectors = squares[:, -count:].flip(-1), vectors[:, :, -count:].flip(-1)
    there = (squares > NOTHING * squares[:, :1].clamp(min=1.0)).unsqueeze(1)
    if not wide:
        vectors = centred @ vectors / squares.clamp(min=1e-30).sqrt().unsqueeze(1)
    return (vectors.abs() * there).float()


def survivors(scores: Tensor, group: Tensor, cosines: Cosines, threshold: Tensor) -> Tensor:
    """Non-maximum suppression in each group, bool [B, N].

    From the highest score down a token stays unless one that stays in its group has a cosine with it above
    `threshold` [B, 1].
    """
    rank = ranks(scores)
    order, suppressed = rank.argsort(dim=1), torch.zeros_like(rank, dtype=torch.bool)
    for step in range(rank.shape[1]):
        token = order[:, step : step + 1]
        similar = cosines.of(token.squeeze(1)) > threshold
        hit = similar & (rank > step) & (group == group.gather(1, token))
        suppressed = suppressed | (hit & ~suppressed.gather(1, token))
    return ~suppressed


def quotas(size: Tensor, stay: Tensor, num_keep: int) -> Tensor:
    """How many tokens each group keeps, summing to `num_keep`, from its size and its survivors [B, G].

    One where a group has any; the rest in proportion to the survivors, rounded along their running sum, up to
    5 · ⌈num_keep / 64⌉ or the survivors; what is over goes to the groups with most survivors. Where these
    bounds do not suffice all rise by the same number, up to the size.
    """
    least = size.clamp(max=1)
    most = stay.clamp(max=5 * math.ceil(num_keep / 64))
    low, high = torch.zeros_like(most[:, :1]), torch.full_like(most[:, :1], num_keep)
    for _ in range(num_keep.bit_length() + 1):  # bisection: the least rise with which there are enough
        middle = (low + high) // 2
        enough = (most + middle).minimum(size).sum(dim=1, keepdim=True) >= num_keep
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    most = (most + high).minimum(size)
    rest = num_keep - least.sum(dim=1, keepdim=True)
    total = stay.sum(dim=1, keepdim=True).clamp(min=1)
    running = (2 * stay.cumsum(dim=1) * rest + total) // (2 * total)
    quota = (least + running.diff(dim=1, prepend=torch.zeros_like(rest))).minimum(most)
    order = torch.sort(stay, dim=1, descending=True, stable=True).indices
    space = (most - quota).gather(1, order)
    over = num_keep - quota.sum(dim=1, keepdim=True)
    more = (over - (space.cumsum(dim=1) - space)).clamp(min=0).minimum(space)
    return quota + torch.zeros_like(more).scatter(1, order, more)


@register_selector("principal_groups", paper="PruneSID (arXiv:2603.09480)", limit=4096)
def principal_groups(
    scores: Tensor,
    tokens: VisionTokens,
    *,
    group_size: Annotated[int, range(1, 4097)] = 4,
    importance: Literal["component", "score"] = "component",
) -> Tensor:
    """Groups by principal component; in each the repeats go last, and a quota of its first stays.

    A token belongs to the one of the `num_keep` // `group_size` largest components of sigmoid(x) - mean in
    whose right singular vector its entry |V| is largest; that entry is its importance, or the scorer's
    score. In a group, from the most important down, a token is a repeat if its cosine with one that is none
    exceeds num_keep / 32 · the mean cosine of all pairs. Quotas are as in `quotas`. `N` steps of O(N), hence
    the limit; a GPU is waited for once, by the eigenvectors. Returns [B, K].
    """
    states, (_, n) = tokens.hidden_states, tokens.shape
    count = max(1, min(tokens.num_keep // group_size, n, states.shape[-1]))
    weight, group = components(states, count).max(dim=-1)  # [B, N] each, of equals the first
    if importance == "score":
        weight = scores
    unit = tokens.unit_hidden_states()
    pairs = unit.sum(dim=1).square().sum(dim=-1) - unit.square().sum(dim=(1, 2))
    mean = pairs / max(1, n * (n - 1))
    threshold = (tokens.num_keep / 32 * mean).unsqueeze(1)
    stay = survivors(weight, group, Cosines(unit), threshold)
    member = (group.unsqueeze(1) == torch.arange(count, device=group.device)[:, None]).long()  # [B, G, N]
    quota = quotas(member.sum(dim=-1), (member * stay.unsqueeze(1)).sum(dim=-1), tokens.num_keep)
    first = -ranks(weight).float() + n * stay.float()  # survivors, then repeats
    place = rank_within(group, first)
    return highest((place < quota.gather(1, group)).float(), tokens.num_keep)


register_method(
    "prunesid",
    scorer="equal",
    selector="principal_groups",
    merger="drop",
    summary="groups by principal component lose their repeats, and each keeps its share",
    paper="PruneSID (arXiv:2603.09480)",
    layers="output",
    differs=(
        "Principal components are exact and importance is the paper's, as released they are approximated "
        "from random directions with each token's own mean taken off, and LLaVA's importance is the "
        "attention of [CLS]; the paper's ratio that follows the image is not offered."
    ),
)
