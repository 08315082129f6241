"""Where the tokens that a forward kept stand on the grid of the unpruned image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..pruning.run import Run
from .cells import Cells
from .masks import Narrowed
from .states import scattered


class Places:
    """The part of a plain tower that projectors and prompts ask."""

    stages: dict[int, float]
    cells: Cells
    num_prefix_tokens: int

    def positions(self, run: Run) -> Tensor | None:
        """Tokens that a forward kept of each image, [B, K], -1 for padding; None = all."""
        return run.layout[max(self.stages)].positions

    def kept(self, run: Run) -> Tensor | None:
        """The same as bool [B, N]."""
        positions = self.positions(run)
        if positions is None:
            return None
        n = math.prod(run.grids[0])
        kept = torch.zeros(len(positions), n + 1, dtype=torch.bool, device=positions.device)
        return kept.scatter(1, positions % (n + 1), True)[:, :n]  # padding, -1, goes to the last column

    @property
    def restores(self) -> bool:
        """Whether a projector gets all places of the grid, with zeros where a token was dropped."""
        return self.cells.side > 1

    def there(self, run: Run) -> Tensor | None:
        """Which of those places hold a token, bool [B, N]; None = all, no image is padded."""
        return None

    def restored(self, run: Run, hidden_states: Tensor) -> Tensor:
        """[B, P + K·M, D] as [B, P + N·M, D] in raster order, zeros where a token was dropped.

        States of before the last stage, which have other lengths, stay as they are.
        """
        narrowed, p = run.layout[max(self.stages)], self.num_prefix_tokens
        index = self.index(run, narrowed)
        if hidden_states.shape[1] != index.shape[1]:
            return hidden_states
        padding = (narrowed.positions < 0).repeat_interleave(self.cells.size, dim=1)
        index = index.masked_fill(torch.nn.functional.pad(padding, (p, 0)), -1)
        return scattered(hidden_states, index, p + math.prod(run.grids[0]) * self.cells.size)

    def index(self, run: Run, narrowed: Narrowed) -> Tensor:
        """Rows of the unpruned sequence that the layers after a stage still have, [B, P + K·M]."""
        if narrowed.index is None:
            narrowed.index = self.cells.rows(narrowed.positions, run.grids[0], self.num_prefix_tokens)
        return narrowed.index
