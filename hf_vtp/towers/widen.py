"""After the blocks of a packed tower: a row for every unit again, marked where one was dropped."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..pruning.run import Run
from .rows import find

if TYPE_CHECKING:
    from .packed import PackedTower


class Widen:
    """Hooks on what follows the blocks, so that Transformers' own code there finds as many rows as it would.

    A merger gets the kept units only, and its output is spread over all units, NaN where one was dropped.
    Where a projector after the tower needs a row for each patch, it gets zeros there, and its output is
    marked. NaN never goes through weights, whose gradient it would poison.
    """

    def __init__(self, tower: PackedTower):
        self.tower = tower

    def attach(self) -> list:
        tower, row = self.tower, self.tower.row
        if not row.merger:
            return [find(tower.module, row.last).register_forward_hook(self.fill)]
        stages, handles = max(tower.stages), []
        for block, merger in self.deepstack():
            stage = max((s for s in tower.stages if s <= block), default=None)
            if stage is not None:
                handles.append(merger.register_forward_hook(functools.partial(self.widen, stage)))
        merger = find(tower.module, row.merger)
        return [*handles, merger.register_forward_hook(functools.partial(self.widen, stages))]

    def deepstack(self) -> list[tuple[int, nn.Module]]:
        """The mergers that run between blocks, each with the block before it."""
        module, path = self.tower.module, self.tower.row.deepstack
        return list(zip(module.deepstack_visual_indexes, find(module, path), strict=True)) if path else []

    def widen(self, stage: int, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """A merger's rows, one for each unit that a stage kept, with NaN for those that were dropped."""
        run = self.tower.call.run
        rows = self.rows(run, stage)
        if rows is None:
            return None
        num_units, size = run.layout.rows.shape
        overflow = output.isnan().any()
        run.overflow = overflow if run.overflow is None else run.overflow | overflow
        full = output.new_full((num_units, output.shape[-1]), float("nan"))
        return full.index_copy(0, rows[::size].to(output.device) // size, output)

    def fill(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """Rows of kept patches [K·M, D] with zeros for those that were dropped."""
        run = self.tower.call.run
        rows = self.rows(run, max(self.tower.stages))
        if rows is None:
            return None
        full = output.new_zeros(run.layout.rows.numel(), output.shape[-1])
        return full.index_copy(0, rows.to(output.device), output)

    def mark(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """A projector's rows, one for each unit, with NaN for those that were dropped."""
        run = self.tower.call.last
        if self.tower.call.run is not None or run is None:
            return None
        if self.rows(run, max(self.tower.stages)) is None:
            return None
        dropped = torch.ones(len(run.layout.rows), 1, dtype=torch.bool, device=output.device)
        kept = run.layout.kept[max(self.tower.stages)].to(output.device)
        dropped = dropped.index_fill(0, kept, False)
        run.overflow = output.masked_fill(dropped, 0).isnan().any()
        return output.masked_fill(dropped, float("nan"))

    def rows(self, run: Run | None, stage: int) -> Tensor | None:
        """Rows of the unpruned sequence that a stage kept, None if all of them."""
        rows = run.layout.kept_rows.get(stage) if run else None
        return None if rows is None or len(rows) == run.layout.rows.numel() else rows
