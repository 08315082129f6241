"""The read-only view of one image's patch tokens that a scorer, selector or merger sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

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
class Choice:
    """What a selector returns that makes groups; others return `keep` alone."""

    keep: Tensor  # [B, K] places of the tokens that stay, ascending, padded with -1 where counts differ
    groups: Tensor | None = None  # [B, N] place in `keep` of the group of every token
    weights: Tensor | None = None  # [B, N] what each token weighs in its group; None = its size
    order: Tensor | None = None  # [B, K] see VisionTokens; None = raster order


def as_choice(returned: Tensor | tuple | Choice) -> Choice:
    """What a selector returned: places, places and groups, or a Choice."""
    made = returned if isinstance(returned, tuple) else (returned,)
    return returned if isinstance(returned, Choice) else Choice(*made)


@dataclass(frozen=True)
class VisionTokens:
    """Patch tokens (or merge units) of B images of one size; prefix tokens ([CLS], registers) are excluded.

    Shapes: B images, N tokens each, D channels, H heads of d channels, P prefix tokens, M patches a token.
    """

    # [B, N, D] output of the pruned layer, in raster order; of a unit the patches' mean
    hidden_states: Tensor
    num_keep: int  # tokens that stay after this stage; a target where the count follows the image
    grid: tuple[int, int, int]  # frames, rows, columns of the whole image
    share: float = 1.0  # of the tokens that entered this stage, what is to stay
    min_keep: int = 1  # bounds of a count that follows the image
    max_keep: int | None = None
    remaining: int = 0  # layers from this stage to the last one
    pooled: bool = False  # what stays the tower itself pools, by size; else a language model reads it
    target: int = 1  # tokens that stay after the last stage
    positions: Tensor | None = None  # [B, N] raster index of each token; None while all are there
    order: Tensor | None = None  # [B, N] place of each token in an order of the method's own; None = raster
    sizes: Tensor | None = None  # [B, N] float32, how many original tokens each stands for; None = one
    valid: Tensor | None = None  # [B, N] False where a row is padding; None = all are tokens
    patches: Tensor | None = None  # [B, N, M, D] where a token is a merge unit of M patches
    full_query: Tensor | None = None  # [B, H, P + N·M, d] of the pruned layer; rotated if attention is needed
    full_key: Tensor | None = None  # [B, H, P + N·M, d]
    full_value: Tensor | None = None  # [B, H, P + N·M, d]
    next_query: Tensor | None = None  # [B, H, P + N·M, d] of the next layer; None after the last
    next_key: Tensor | None = None  # [B, H, P + N·M, d]
    num_prefix_tokens: int = 0
    layer: int = 0
    seen: dict[int, Tensor] = field(default_factory=dict)  # [B, N] by layer, what a method asked to observe
    text: Tensor | None = None  # [B, T, D'] embeddings of the prompt's text
    text_valid: Tensor | None = None  # [B, T] False where text is padding
    # content into the language model's space, [B, N, D'], for methods that ask; None = no such model
    project: Callable[[Tensor], Tensor] | None = None
    at_output: bool = True  # whether a projector comes next, and no other layer
    groups: Tensor | None = None  # [B, N] place in `keep` of each token's group, if the selector made groups
    group_weights: Tensor | None = None  # [B, N] what each token weighs in its group, if the selector says

    @property
    def query(self) -> Tensor:
        """[B, H, N·M, d]"""
        return self.full_query[:, :, self.num_prefix_tokens :]

    @property
    def key(self) -> Tensor:
        """[B, H, N·M, d]"""
        return self.full_key[:, :, self.num_prefix_tokens :]

    @property
    def value(self) -> Tensor:
        """[B, H, N·M, d]"""
        return self.full_value[:, :, self.num_prefix_tokens :]

    @property
    def shape(self) -> tuple[int, int]:
        """(B, N)"""
        return self.hidden_states.shape[0], self.hidden_states.shape[1]

    @property
    def content(self) -> Tensor:
        """What a merger merges, [B, N, M·D]: the hidden states, or a unit's patches side by side."""
        return self.hidden_states if self.patches is None else self.patches.flatten(2)

    @property
    def num_patches(self) -> int:
        """M"""
        return 1 if self.patches is None else self.patches.shape[2]

    def place(self) -> Tensor:
        """Raster index of each token, [B, N]."""
        if self.positions is not None:
            return self.positions
        return torch.arange(self.shape[1], device=self.hidden_states.device).expand(self.shape)

    def per_token(self, x: Tensor) -> Tensor:
        """The mean over the patches of each token: [..., N·M] to [..., N]."""
        return x if self.patches is None else x.unflatten(-1, self.patches.shape[1:3]).mean(dim=-1)

    def in_float32(self) -> VisionTokens:
        """The same with queries and keys in float32, for work that reads them block after block."""
        return replace(self, full_query=self.full_query.float(), full_key=self.full_key.float())

    def next_as_one_head(self) -> VisionTokens:
        """The same with the next layer's queries and keys, all heads side by side as one, [B, 1, .., H·d].

        After a tower's last layer with that layer's own.
        """
        last = self.next_query is None
        states = (self.full_query, self.full_key) if last else (self.next_query, self.next_key)
        query, key = (x.transpose(1, 2).flatten(2).unsqueeze(1) for x in states)
        return replace(self, full_query=query, full_key=key)

    def attention(self, rows: slice | Tensor) -> Tensor:
        """Rows of softmax(QKᵀ/√d) over all tokens, prefix included, [B, H, rows, P + N·M] in float32.

        Tokens of another frame and padding are not attended to. Rows are the same, or each image's, [B, R].
        """
        q, own = self.full_query, isinstance(rows, Tensor)
        query = q.take_along_dim(rows[:, None, :, None], dim=2) if own else q[:, :, rows]
        query, key = query.float(), self.full_key.float()
        logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        for blind in self._blind(rows):
            logits = logits.masked_fill(blind.unsqueeze(1), float("-inf"))
        return logits.softmax(dim=-1)

    def _blind(self, rows: slice | Tensor) -> Iterator[Tensor]:
        """What no query of these rows sees, bool [B, 1 or rows, P + N·M]."""
        frames, height, width = self.grid
        if frames > 1:  # such towers have no prefix
            frame = (self.place() // (height * width)).repeat_interleave(self.num_patches, dim=1)
            asking = take(frame, rows) if isinstance(rows, Tensor) else frame[:, rows]
            yield asking.unsqueeze(2) != frame.unsqueeze(1)
        if self.valid is not None:
            yield ~self.valid_patches().unsqueeze(1)

    def valid_patches(self) -> Tensor:
        """`valid` of every query and key, prefix included, [B, P + N·M]."""
        valid = self.valid.repeat_interleave(self.num_patches, dim=1)
        return torch.nn.functional.pad(valid, (self.num_prefix_tokens, 0), value=True)

    def cls_attention(self) -> Tensor:
        """Attention of [CLS] to each token, [B, H, N]: one row, so it costs O(N)."""
        return self.per_token(self.attention(slice(0, 1))[:, :, 0, self.num_prefix_tokens :])

    def attention_blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, rows [B, H, stop - start, P + N·M]) over all queries; rows of padding are zero."""
        tokens, length = self.in_float32(), self.full_query.shape[2]
        for start, stop in row_blocks(length, length * self.full_query.shape[1]):
            rows = tokens.attention(slice(start, stop))
            if self.valid is not None:
                # not a product: a row that sees nothing, padding of a frame that is empty, is NaN
                rows = rows.masked_fill(~self.valid_patches()[:, None, start:stop, None], 0)
            yield start, stop, rows

    def received_attention(self) -> Tensor:
        """Attention each token receives from all, prefix included, [B, H, N]; summed in blocks of rows."""
        received = 0.0
        for _, _, rows in self.attention_blocks():
            received = received + rows.sum(dim=2)
        return self.per_token(received[:, :, self.num_prefix_tokens :])

    def salience(self) -> Tensor:
        """Attention of [CLS] to each token, mean over heads, [B, N]; sums to at most one.

        Where a tower has no [CLS], the attention that a token receives, mean over heads and queries; of a
        merge unit the sum over its patches.
        """
        if self.num_prefix_tokens:
            return self.cls_attention().mean(dim=1)
        queries = self.full_query.shape[2] if self.valid is None else self.valid_patches().sum(1)[:, None]
        return self.received_attention().mean(dim=1) * self.num_patches / queries

    def unit_hidden_states(self) -> Tensor:
        """Hidden states of length one in float32, [B, N, D]; their products are cosines."""
        return torch.nn.functional.normalize(self.hidden_states.float(), dim=-1)

    def unit_keys(self) -> Tensor:
        """Keys, mean over the heads, of length one in float32, [B, N, d]."""
        keys = self.key.float().mean(dim=1)  # [B, N·M, d]
        return torch.nn.functional.normalize(self.per_token(keys.transpose(1, 2)).transpose(1, 2), dim=-1)

    def unit_joint_states(self) -> Tensor:
        """Tokens in the space of the text, of length one in float32, [B, N, D']; made in blocks of rows."""
        content, unit = self.content, None
        for start, stop in row_blocks(self.shape[1], 4 * content.shape[-1]):  # projectors are wider within
            projected = self.project(content[:, start:stop]).to(content.device)  # may lie elsewhere
            if unit is None:
                unit = projected.new_empty(*self.shape, projected.shape[-1], dtype=torch.float32)
            unit[:, start:stop] = torch.nn.functional.normalize(projected.float(), dim=-1)
        return unit

    def unit_projected_states(self) -> Tensor:
        """Tokens as the language model reads them, of length one in float32, [B, N, D'].

        Hidden states where it does not read them next: inside a tower, for whose later layers a projector was
        not made, and where there is no language model. A part that calls this needs "projected".
        """
        if self.project is None or not self.at_output:
            return self.unit_hidden_states()
        return self.unit_joint_states()

    def weights(self) -> Tensor:
        """`sizes`, or ones, [B, N] float32; 0 for padding."""
        if self.sizes is not None:
            return self.sizes
        if self.valid is not None:
            return self.valid.float()
        return torch.ones(self.shape, dtype=torch.float32, device=self.hidden_states.device)

    def rows(self, images: Tensor, count: int) -> VisionTokens:
        """The first `count` tokens of some images [b], as a view of its own without padding."""
        length = self.num_prefix_tokens + count * self.num_patches
        by_token = ("hidden_states", "positions", "order", "sizes", "patches", "groups", "group_weights")
        by_patch = ("full_query", "full_key", "full_value", "next_query", "next_key")
        fields = {name: getattr(self, name) for name in (*by_token, *by_patch, "text", "text_valid")}
        whole = len(images) == len(self.hidden_states)  # then views will do
        fields = {name: x if whole or x is None else x[images] for name, x in fields.items()}
        fields |= {name: None if fields[name] is None else fields[name][:, :count] for name in by_token}
        fields |= {name: None if fields[name] is None else fields[name][:, :, :length] for name in by_patch}
        seen = {layer: x[images, :count] for layer, x in self.seen.items()}
        return replace(self, **fields, seen=seen, valid=None)
