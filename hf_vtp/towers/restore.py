"""Between tower and prompt: the grid that a projector needs, and marks on the rows of dropped tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    def attach(self) -> list:
        handles = [self.projector.register_forward_hook(self.mark)]
        if self.tower.cells.side > 1:
            handles.append(self.tower.module.register_forward_hook(self.restore))
        return handles

    def mark(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """The projector's rows, one for each token of the full grid, NaN where one was dropped."""
        if self.tower.call.run is not None:  # a method asks what tokens are in the language model's space
            return None
        run = self.tower.call.last
        kept = None if run is None else self.tower.kept(run)
        if kept is None:
            return None
        full = self.tower.cells.side > 1  # the grid is there already
        present = kept.shape[1] if full else self.tower.positions(run).shape[1]
        prefix = output.shape[1] - present  # rows of prefix tokens, where the language model reads those
        kept = torch.nn.functional.pad(kept, (prefix, 0), value=True)  # [B, P + N]
        if full:
            rows = output
        else:
            places = self.tower.positions(run)  # [B, K], -1 for padding
            front = torch.arange(prefix, device=places.device).expand(len(places), -1)
            index = torch.cat([front, (places + prefix).masked_fill(places < 0, -1)], dim=1)
            rows = scattered(output, index, kept.shape[1])
        dropped = ~kept.to(output.device).unsqueeze(-1)
        run.overflow = rows.masked_fill(dropped, 0).isnan().any()
        return rows.masked_fill(dropped, float("nan"))

    def restore(self, module: nn.Module, args: tuple, output):
        """The tower's output with a row for every token of the full grid, zeros where one was dropped."""
        run = self.tower.call.last
        if run is None or self.tower.kept(run) is None:
            return None
        for name in STATES:
            states = getattr(output, name, None)
            if isinstance(states, Tensor):
                setattr(output, name, self.tower.restored(run, states))
            elif states is not None:
                setattr(output, name, tuple(self.tower.restored(run, x) for x in states))
        return output
