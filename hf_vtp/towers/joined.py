"""Towers with the patches of all images one after the other in one row, where a mask keeps images apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..pruning.run import Group, Run
from .layer_hooks import LayerHooks
from .masks import Narrowed
from .padded import PaddedTower

OF_THE_ROW = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "position_ids")


class JoinedTower(PaddedTower):
    """Images in one row [1, L, D] until a stage drops something; from then on a row each, padded.

    A layer takes either form: the mask of images from each other gives way to one of padding, if any.
    """

    restores = True

    def starts(self, run: Run) -> list[int]:
        """Where each image begins in the row, and where the last one ends."""
        ends = [0]
        for grid in run.grids:
            ends.append(ends[-1] + math.prod(grid) * self.cells.size)
        return ends

    def joined(self, run: Run, hidden_states: Tensor) -> bool:
        """Whether a layer's output is still the one row."""
        return hidden_states.shape[:2] == (1, self.starts(run)[-1])

    def places(self, run: Run, images: range | list[int], rows: Tensor) -> Tensor:
        """Rows of images [B, K·M], counted within each, as rows of the one row."""
        starts = torch.tensor(self.starts(run), device=rows.device)[
            torch.tensor(list(images), device=rows.device)
        ]
        return rows + starts[:, None]

    def rows_of(
        self, run: Run, group: Group, hidden_states: Tensor, recorded: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        recorded = dict(recorded)
        rope = recorded.pop("position_embeddings", None)
        if not self.joined(run, hidden_states):
            part, own = super().rows_of(run, group, hidden_states, recorded)
            if rope is not None:
                images = torch.tensor(list(group.images), device=part.device)
                own["position_embeddings"] = tuple(x[images, :, : part.shape[1]] for x in rope)
            return part, own
        length = math.prod(run.grids[group.images[0]]) * self.cells.size
        rows = torch.arange(length, device=hidden_states.device).expand(len(group.images), -1)
        rows = self.places(run, group.images, rows)
        own = {name: x[0][rows] for name, x in recorded.items()}
        if rope is not None:
            own["position_embeddings"] = tuple(x[rows].unsqueeze(1) for x in rope)
        return hidden_states[0][rows], own

    def laid_out(self, run: Run, layer: int, groups: list[Group], hidden_states: Tensor) -> Narrowed:
        narrowed = super().laid_out(run, layer, groups, hidden_states)
        narrowed.length = max(map(math.prod, run.grids)) * self.cells.size
        return narrowed

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        narrowed = run.layout[hooks.previous_stage]
        if narrowed.positions is None:
            return args, kwargs
        rope = self.rope(args, kwargs)
        if narrowed.rope is None and rope is not None:
            rows = self.index(run, run.stages[hooks.previous_stage]).clamp(min=0)
            rows = self.places(run, range(len(run.grids)), rows)
            narrowed.rope = tuple(self.row.rope(x[rows].unsqueeze(1)) for x in rope)
        args, kwargs = super().narrow(run, hooks, args, kwargs)
        kwargs = {name: x for name, x in kwargs.items() if name not in OF_THE_ROW}
        return self.position_embeddings.put(narrowed.rope, args, kwargs)

    def restored(self, run: Run, hidden_states: Tensor) -> Tensor:
        """The one row again, [1, L, D], zeros where a token was dropped."""
        rows = super().restored(run, hidden_states)
        if rows is hidden_states:
            return hidden_states
        ends = self.starts(run)
        lengths = [last - first for first, last in zip(ends, ends[1:], strict=False)]
        return torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])[None]
