"""Between tower and prompt: the grid that a projector needs, and marks on the rows of dropped tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..per_thread import PerThread
from ..pruning.run import Run
from .plain import PlainTower
from .states import scattered

STATES = ("last_hidden_state", "hidden_states")  # fields of a tower's output that have a row for each token


class Restore:
    """Hooks on a tower and its projector.

    A projector that works row by row gets the kept tokens only, and its rows are spread over the full grid
    afterwards. One that makes a row of each cell gets the full grid, zeros where a cell was dropped. In both
    the rows of dropped tokens are NaN, and never before the projector: NaN through a Linear poisons the
    gradient of its weight.
    """

    def __init__(self, tower: PlainTower, projector: nn.Module):
        self.tower, self.projector = tower, projector
        self.marked = PerThread(Marked)

    def attach(self) -> list:
        if not self.tower.restores:
            return [self.projector.register_forward_hook(self.mark)]
        return [
            self.projector.register_forward_hook(self.mark_cells),
            self.tower.module.register_forward_hook(self.restore),
        ]

    def mark(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """The projector's rows, one for each token of the full grid, NaN where one was dropped."""
        if self.tower.call.run is not None:  # a method asks what tokens are in the language model's space
            return None
        run = self.tower.call.last
        kept = None if run is None else self.tower.kept(run)
        if kept is None:
            return None
        places = self.tower.positions(run)  # [B, K], -1 for padding
        prefix = output.shape[1] - places.shape[1]  # where the language model reads prefix tokens too
        front = torch.arange(prefix, device=places.device).expand(len(places), -1)
        index = torch.cat([front, (places + prefix).masked_fill(places < 0, -1)], dim=1)
        kept = torch.nn.functional.pad(kept, (prefix, 0), value=True)  # [B, P + N]
        return marked(run, scattered(output, index, kept.shape[1]), kept)

    def mark_cells(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """The projector's rows [..., cells, D], NaN where a cell was dropped.

        It is called with all images, with their padding or without, or with one after the other. One that
        makes a row of each patch is called with all of them, [B, patches, D].
        """
        run, call = self.tower.call.last, self.marked.now
        if run is None or self.tower.kept(run) is None:
            return None
        kept, cells = self.tower.kept(run), self.tower.cells
        if output.shape[:-1] == (len(kept), kept.shape[1] * cells.size):
            grid = kept.unflatten(1, run.grids[0])  # [B, frames, rows, columns]
            patches = grid.repeat_interleave(cells.side, dim=2).repeat_interleave(cells.side, dim=3)
            return marked(run, output, patches.flatten(1))
        if call.run is not run:
            call.run, call.rows = run, 0
        rows, there = output.flatten(0, -2), self.tower.there(run)
        kept = kept.flatten() if there is None or len(rows) == kept.numel() else kept[there]
        kept = kept[call.rows : call.rows + len(rows)]
        call.rows += len(rows)
        return marked(run, rows, kept).view_as(output) if len(kept) else None

    def restore(self, module: nn.Module, args: tuple, output):
        """The tower's output with a row for every token of the full grid, zeros where one was dropped."""
        run = self.tower.call.last
        if run is None or self.tower.kept(run) is None:
            return None
        for name in STATES:
            states = getattr(output, name, None)
            if isinstance(states, Tensor):
                setattr(output, name, self.tower.restored(run, states))
            elif states is not None:  # releases differ in whether they hold those that nobody asked for
                setattr(output, name, tuple(x if x is None else self.tower.restored(run, x) for x in states))
        return output


@dataclass
class Marked:
    """How many rows of cells of a tower's last run a projector has made."""

    run: Run | None = None
    rows: int = 0


def marked(run: Run, rows: Tensor, kept: Tensor) -> Tensor:
    """Rows [..., D], NaN where not `kept` [...]; the run remembers whether any other was NaN before."""
    dropped = ~kept.to(rows.device).unsqueeze(-1)
    overflow = rows.masked_fill(dropped, 0).isnan().any()
    run.overflow = overflow if run.overflow is None else run.overflow | overflow
    return rows.masked_fill(dropped, float("nan"))
