"""ToMe as its paper has it (Bolya et al., ICLR 2023, arXiv:2210.09461), for a ViT classifier of Transformers.

The library merges at the end of a layer, which is where hooks reach; the paper merges between attention and
MLP. This reference runs the layers' own modules in its own order, so that both can be compared. Written from
the paper's text, sections 3 and 4:

- in every layer r pairs merge, at most half of the tokens (without [CLS]);
- two tokens are alike by the cosine of their keys, the mean over the heads;
- tokens are split in turns into A and B, [CLS] being the first of A; each of A has one edge, to the most
  similar of B; the r most similar edges merge; the edge of [CLS] never does;
- merged features are means weighted by the number of patches in them, and attention is proportional:
  softmax(q k / sqrt(d) + log size);
- the next layer sees the unmerged of A in their order, then B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention


@dataclass(frozen=True)
class Plan:
    """Places in A that stay [B, a - r], places in A that leave [B, r], and where in B these go [B, r]."""

    stay: Tensor
    leave: Tensor
    into: Tensor


def bounded(r: int, num_tokens: int) -> int:
    """How many of so many tokens, [CLS] among them, merge where r are asked for."""
    return max(0, min(r, (num_tokens - 1) // 2))


def plan(metric: Tensor, r: int) -> Plan:
    """The r most similar pairs of a bipartite matching, by `metric` [B, 1 + N, D]; its first row is [CLS]."""
    unit = normalize(metric.float(), dim=-1)
    similarity = unit[:, ::2] @ unit[:, 1::2].mT  # [B, a, b]
    best, into = similarity.max(dim=-1)
    best[:, 0] = -torch.inf  # [CLS] stays
    order = best.argsort(dim=-1, descending=True, stable=True)
    leave, stay = order[:, :r], order[:, r:].sort(dim=-1).values
    return Plan(stay, leave, into.gather(1, leave))


def merge(x: Tensor, sizes: Tensor, chosen: Plan) -> tuple[Tensor, Tensor]:
    """Tokens [B, n, D] and the number of patches in each [B, n] after the merge, unmerged first, then B."""
    weighted = torch.cat([x * sizes.unsqueeze(-1), sizes.unsqueeze(-1)], dim=-1)  # [B, n, D + 1]
    a, b = weighted[:, ::2], weighted[:, 1::2]

    def rows(index: Tensor) -> Tensor:
        return index.unsqueeze(-1).expand(-1, -1, weighted.shape[-1])

    b = b.scatter_add(1, rows(chosen.into), a.gather(1, rows(chosen.leave)))
    weighted = torch.cat([a.gather(1, rows(chosen.stay)), b], dim=1)
    sizes = weighted[..., -1]
    return weighted[..., :-1] / sizes.unsqueeze(-1), sizes


def attend(attention: nn.Module, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The output of proportional attention [B, n, D], and the keys' mean over the heads [B, n, d]."""
    heads = (*x.shape[:2], -1, attention.head_dim)
    q, k, v = (getattr(attention, f"{n}_proj")(x).view(heads).transpose(1, 2) for n in "qkv")  # [B, h, n, d]
    bias = sizes.log()[:, None, None, :].to(q.dtype)
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=attention.scaling)
    return attention.o_proj(mixed.transpose(1, 2).flatten(2)), k.mean(dim=1)


def layer_forward(layer: nn.Module, x: Tensor, sizes: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """One layer of a ViT that merges r pairs between attention and MLP: tokens and sizes."""
    mixed, metric = attend(layer.attention, layer.layernorm_before(x), sizes)
    x = x + mixed
    r = bounded(r, x.shape[1])
    if r:
        x, sizes = merge(x, sizes, plan(metric, r))
    return x + layer.mlp(layer.layernorm_after(x)), sizes


@torch.no_grad()
def forward(model: nn.Module, pixel_values: Tensor, schedule: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, C], the final [CLS] [B, D], and the sizes left [B, n], of a ViTForImageClassification.

    `schedule` is r for each layer.
    """
    x = model.vit.embeddings(pixel_values)
    sizes = x.new_ones(x.shape[:2])
    for layer, r in zip(model.vit.layers, schedule, strict=True):
        x, sizes = layer_forward(layer, x, sizes, r)
    pooled = model.vit.layernorm(x)[:, 0]
    return model.classifier(pooled), pooled, sizes


def taking_turns(total: int, num_layers: int) -> list[int]:
    """r of each layer, so many in all: after every layer the whole part of its share has merged.

    Where `total` is no multiple of the layers, they take turns between the two neighbouring r.
    """
    done = [layer * total // num_layers for layer in range(num_layers + 1)]
    return [after - before for before, after in zip(done, done[1:], strict=False)]
