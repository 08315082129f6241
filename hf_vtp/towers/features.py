"""A stage after the features: any model whose tower no row describes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..pruning.registry import OF_LAYERS
from ..pruning.run import Group, Run
from ..pruning.stage import needs, prune
from ..pruning.tokens import VisionTokens
from .rows import Grid, TowerRow
from .tower import Tower


class Features(Tower):
    """Stands where a tower stands; its only stage sees the rows that the language model would read."""

    def __init__(self, inner: nn.Module, config: VTPConfig):
        config = config.after_features()
        missing = sorted(needs(config) & OF_LAYERS)
        if missing:
            raise ValueError(
                f"method {config.method!r} reads {missing[0]} of a vision tower's layers, and how those of "
                f"{type(inner).__name__} are laid out is not known; choose a method that needs none, see "
                "after_features in list_methods()"
            )
        stages = config.stages(1, "the features, which have one stage", has_output=True)
        super().__init__(TowerRow("", ""), inner, config, stages)

    @property
    def layers(self) -> nn.ModuleList:
        return ()

    def attach(self) -> None:
        """Nothing: the stage is called where features are read."""

    def amounts(self, num_tokens: int) -> dict:
        return super().amounts(0, num_tokens)

    def keep(self, rows: list[Tensor], grids: list[Grid]) -> tuple[list[Tensor], Tensor]:
        """What the stage makes of the features of each image [T, D], and which of all of them stay."""
        run = Run(grids, None)
        groups: dict[Grid, list[int]] = {}
        for image, grid in enumerate(grids):
            groups.setdefault(grid, []).append(image)
        kept, flags = list(rows), [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
        run.stages[0] = []
        for grid, images in groups.items():
            states = torch.stack([rows[image] for image in images])  # [B, N, D]
            run.stages[0].append(self.stage(run, grid, images, states, kept, flags))
        self.last = self.call.last = run
        return kept, torch.cat(flags)

    def stage(
        self,
        run: Run,
        grid: Grid,
        images: list[int],
        states: Tensor,
        kept: list[Tensor],
        flags: list[Tensor],
    ) -> Group:
        """Prune images of one size; writes what it kept of each and which."""
        amounts = self.amounts(states.shape[1])
        if self.leaves_all(0, states.shape[1], amounts["num_keep"]):
            return Group(images, None, None, None)
        tokens = VisionTokens(hidden_states=states, grid=grid, **amounts, **self.language(0, images))
        outcome = prune(tokens, self.config)
        for b, image in enumerate(images):
            there = outcome.keep[b] >= 0
            kept[image] = outcome.hidden_states[b][there]
            flags[image] = torch.zeros_like(flags[image]).index_fill(0, outcome.keep[b][there], True)
        sizes = outcome.sizes
        return Group(images, outcome.keep, sizes, replace(outcome, hidden_states=None))
