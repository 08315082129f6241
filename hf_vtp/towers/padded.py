"""Towers whose images have different grids in one batch, each padded after its patches (naflex)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..pruning.run import Group, Run
from ..pruning.stage import observe
from .layer_hooks import LayerHooks
from .masks import Narrowed, expanded
from .plain import Part, PlainTower
from .states import scattered
from .units import whole_groups


class PaddedTower(PlainTower):
    """Images of one grid are pruned together, so that each keeps what it would keep alone.

    What stays of all of them is padded to the longest, and padding is masked by what masks later layers.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.masks = True

    def entered(self, run: Run, layer: int) -> list[Group]:
        previous = self.layer_hooks[layer].previous_stage
        return whole_groups(run.grids) if previous is None else run.stages[previous]

    def prune(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> Tensor:
        before, groups, rows, seen = run.stages.get(layer), [], [], []
        for i, part in enumerate(self.parts(run, layer, hidden_states, recorded)):
            narrowed, group = self.pruned(run, layer, part, before[i] if before else None)
            rows.append(narrowed)
            groups.append(group)
            seen.append(part.seen if group.outcome is None else part.seen_of_kept(group))
        if before is None:
            run.stages[layer] = groups
            run.seen = {watched: [x[watched] for x in seen] for watched in run.seen}
            run.layout[layer] = self.laid_out(run, layer, groups, hidden_states)
        if run.layout[layer].positions is None:
            return hidden_states
        return together(groups, rows, len(run.grids))

    def observe(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> None:
        parts = self.parts(run, layer, hidden_states, recorded)
        run.seen[layer] = [observe(self.tokens(run, layer, part), self.watched[layer]) for part in parts]

    def parts(
        self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]
    ) -> Iterator[Part]:
        """What a layer made of the images of each grid, without padding."""
        for i, group in enumerate(self.entered(run, layer)):
            own = self.rows_of(run, group, hidden_states, recorded)
            yield Part(group, *own, {watched: x[i] for watched, x in run.seen.items()})

    def rows_of(
        self, run: Run, group: Group, hidden_states: Tensor, recorded: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A layer's output and projections for the images of one grid, without padding."""
        images = torch.tensor(list(group.images), device=hidden_states.device)
        length = self.num_prefix_tokens + self.width(run, group) * self.cells.size
        own = {name: x[images, :length] for name, x in recorded.items()}
        return hidden_states[images, :length], own

    def width(self, run: Run, group: Group) -> int:
        """Tokens that images of one grid have after a stage, K."""
        whole = group.positions is None
        return math.prod(run.grids[group.images[0]]) if whole else group.positions.shape[1]

    def laid_out(self, run: Run, layer: int, groups: list[Group], hidden_states: Tensor) -> Narrowed:
        """What later layers are handed: positions [B, K] and what is added to the logits of each key."""
        if all(group.positions is None for group in groups):
            return Narrowed()
        device, positions = hidden_states.device, []
        for group in groups:
            every = torch.arange(self.width(run, group), device=device).expand(len(group.images), -1)
            positions.append(every if group.positions is None else group.positions)
        sizes = [self.sizes(run, group, device) for group in groups]
        even = not self.weighs and not self.adaptive and len({x.shape[1] for x in sizes}) == 1
        bias = None if even else self.key_bias(together(groups, sizes, len(run.grids)), hidden_states.dtype)
        # one is added and taken away again: padding becomes -1
        positions = together(groups, [x + 1 for x in positions], len(run.grids)) - 1
        before = run.layout.get(self.layer_hooks[layer].previous_stage, Narrowed())
        return Narrowed(positions, bias=bias, length=before.length or hidden_states.shape[1])

    def sizes(self, run: Run, group: Group, device: torch.device) -> Tensor:
        """Original tokens that each token of images of one grid stands for, [B, K]."""
        ones = torch.ones(len(group.images), self.width(run, group), device=device)
        return ones if group.sizes is None else group.sizes

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        narrowed = run.layout[hooks.previous_stage]
        if narrowed.positions is None:
            return args, kwargs
        if narrowed.mask is None and narrowed.bias is not None:
            narrowed.mask = expanded(narrowed.bias)
        return self.mask.put(narrowed.mask, args, kwargs)  # never the tower's own: the bias has the padding

    def there(self, run: Run) -> Tensor:
        narrowed = run.layout[max(self.stages)]
        counts = torch.tensor([math.prod(grid) for grid in run.grids], device=narrowed.positions.device)
        return torch.arange(narrowed.length // self.cells.size, device=counts.device) < counts[:, None]

    def kept(self, run: Run) -> Tensor | None:
        """Tokens that a forward kept, bool [B, N] with True where an image is padded; None = all."""
        positions = self.positions(run)
        if positions is None:
            return None
        there = self.there(run)
        kept = scattered(torch.ones_like(positions).unsqueeze(-1), positions, there.shape[1])
        return kept[..., 0].bool() | ~there

    def index(self, run: Run, groups: list[Group]) -> Tensor:
        """Rows of each unpruned image that a stage kept, [B, K·M], -1 for padding."""
        parts, device = [], next(x.positions.device for x in groups if x.positions is not None)
        for group in groups:
            every = torch.arange(self.width(run, group), device=device).expand(len(group.images), -1)
            own = every if group.positions is None else group.positions
            rows = self.cells.rows(own, run.grids[group.images[0]], self.num_prefix_tokens)
            parts.append(rows.masked_fill((own < 0).repeat_interleave(self.cells.size, dim=1), -1) + 1)
        return together(groups, parts, len(run.grids)) - 1

    def restored(self, run: Run, hidden_states: Tensor) -> Tensor:
        index = self.index(run, run.stages[max(self.stages)])
        if hidden_states.shape[:2] != index.shape:
            return hidden_states
        return scattered(hidden_states, index, run.layout[max(self.stages)].length)

    def weighed(self, run: Run, hidden_states: Tensor) -> Tensor:
        """Tokens where they were at full length, [B, N, D], whose mean over an image weighs each by its size.

        Not as a shorter mean, because whoever takes it has the mask of the full length.
        """
        narrowed, groups = run.layout[max(self.stages)], run.stages[max(self.stages)]
        if narrowed.positions is None:
            return hidden_states
        shares = []
        for group in groups:
            sizes = self.sizes(run, group, hidden_states.device)
            share = sizes / sizes.sum(dim=1, keepdim=True)
            shares.append(share * math.prod(run.grids[group.images[0]]))
        share = together(groups, shares, len(run.grids)).unsqueeze(-1)  # [B, K, 1]
        weighed = (hidden_states.float() * share).to(hidden_states.dtype)
        return scattered(weighed, narrowed.positions, narrowed.length)


def together(groups: list[Group], parts: list[Tensor], count: int) -> Tensor:
    """Rows of `count` images [B, K, ...] from those of each group, zeros after the shorter."""
    longest = max(part.shape[1] for part in parts)
    whole = parts[0].new_zeros(count, longest, *parts[0].shape[2:])
    for group, part in zip(groups, parts, strict=True):
        images = torch.tensor(list(group.images), device=part.device)
        padding = (0, 0) * (part.dim() - 2) + (0, longest - part.shape[1])
        whole = whole.index_copy(0, images, torch.nn.functional.pad(part, padding))  # gradients flow
    return whole
