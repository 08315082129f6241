"""The read-only view of one image's patch tokens that a scorer, selector or merger sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 22  # float32 numbers in one block of one image: 16 MiB


def row_blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """(start, stop) pairs over `rows`, each block at most BLOCK_ELEMENTS numbers; one block where it fits."""
    step = max(1, BLOCK_ELEMENTS // max(1, columns))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` [B, K] of `x` [B, N] or [B, N, D]: [B, K] or [B, K, D]. The only gather in the package."""
    if x.dim() == 2:
        return x.gather(1, index)
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def num_keep(num_tokens: int, keep_ratio: float, min_keep: int = 1, max_keep: int | None = None) -> int:
    """How many of `num_tokens` stay: `max(1, round(keep_ratio * num_tokens))`, within the two bounds."""
    count = max(1, min_keep, round(keep_ratio * num_tokens))
    return min(count, num_tokens if max_keep is None else max_keep, num_tokens)


@dataclass(frozen=True)
class VisionTokens:
    """Patch tokens (or merge units) of B images of one size; prefix tokens ([CLS], registers) are excluded.

    Shapes: B images, N tokens each, D channels, H heads of d channels, P prefix tokens.
    """

    hidden_states: (
        Tensor  # [B, N, D] output of the pruned layer, in raster order; of a unit the patches' mean
    )
    num_keep: int  # tokens that stay after this stage; a target where the count follows the image
    grid: tuple[int, int, int]  # frames, rows, columns of the whole image
    positions: Tensor | None = None  # [B, N] raster index of each token; None while nothing has left
    sizes: Tensor | None = None  # [B, N] float32, how many original tokens each stands for; None = one
    valid: Tensor | None = None  # [B, N] False where a row is padding; None = all are tokens
    patches: Tensor | None = None  # [B, N, M, D] where a token is a merge unit of M patches
    full_query: Tensor | None = None  # [B, H, P + N·M, d] of the pruned layer; rotated if attention is needed
    full_key: Tensor | None = None  # [B, H, P + N·M, d]
    num_prefix_tokens: int = 0
    layer: int = 0
    text: Tensor | None = None  # [B, T, D'] prompt embeddings where the family has them

    @property
    def query(self) -> Tensor:
        """[B, H, N·M, d]"""
        return self.full_query[:, :, self.num_prefix_tokens :]

    @property
    def key(self) -> Tensor:
        """[B, H, N·M, d]"""
        return self.full_key[:, :, self.num_prefix_tokens :]

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)"""
        return self.hidden_states.shape[0], self.hidden_states.shape[1]

    @property
    def content(self) -> Tensor:
        """What a merger merges, [B, N, M·D]: the hidden states, or a unit's patches side by side."""
        return self.hidden_states if self.patches is None else self.patches.flatten(2)

    def per_token(self, x: Tensor) -> Tensor:
        """The mean over the patches of each token: [..., N·M] to [..., N]."""
        return x if self.patches is None else x.unflatten(-1, self.patches.shape[1:3]).mean(dim=-1)

    def attention(self, rows: slice) -> Tensor:
        """Rows of softmax(QKᵀ/√d) over all tokens, prefix included, [B, H, rows, P + N·M] in float32."""
        query, key = self.full_query[:, :, rows].float(), self.full_key.float()
        return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)

    def cls_attention(self) -> Tensor:
        """Attention of [CLS] to each token, [B, H, N]: one row, so it costs O(N)."""
        row = self.attention(slice(0, 1))[:, :, 0, self.num_prefix_tokens :]
        return self.per_token(row)

    def received_attention(self) -> Tensor:
        """Attention each token receives from all, prefix included, [B, H, N]; summed in blocks of rows."""
        length = self.full_query.shape[2]
        received = 0.0
        for start, stop in row_blocks(length, length * self.full_query.shape[1]):
            received = received + self.attention(slice(start, stop)).sum(dim=2)
        return self.per_token(received[:, :, self.num_prefix_tokens :])

    def unit_hidden_states(self) -> Tensor:
        """Hidden states of length one in float32, [B, N, D]; their products are cosines."""
        return torch.nn.functional.normalize(self.hidden_states.float(), dim=-1)

    def weights(self) -> Tensor:
        """`sizes`, or ones, [B, N] float32."""
        if self.sizes is not None:
            return self.sizes
        return torch.ones(self.shape, dtype=torch.float32, device=self.hidden_states.device)
