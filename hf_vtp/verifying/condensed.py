"""A full prompt with its masked columns taken out by hand, for layers that step over what is masked."""

from __future__ import annotations

import torch
from torch import Tensor


def condensed(prompt: dict[str, Tensor]) -> dict[str, Tensor]:
    """Arguments [..., B, n(, D)] with the columns that `attention_mask` leaves, padded on the left."""
    alive = prompt["attention_mask"] != 0
    longest = int(alive.sum(dim=1).max())

    def short(x: Tensor, axis: int) -> Tensor:
        x, rows = x.movedim(axis, 0), []  # rows first, columns second or last but one
        for row, there in zip(x, alive, strict=True):
            kept = row[there] if axis == 0 else row[..., there]
            wide = kept.new_zeros((longest, *kept.shape[1:]) if axis == 0 else (*kept.shape[:-1], longest))
            place = (slice(longest - int(there.sum()), None),)
            wide[place if axis == 0 else (..., *place)] = kept
            rows.append(wide)
        return torch.stack(rows).movedim(0, axis)

    return {name: short(x, x.dim() - 2 if name == "position_ids" else 0) for name, x in prompt.items()}


def spread(x: Tensor, alive: Tensor) -> Tensor:
    """Columns [B, m, D] of a condensed prompt where they stood in the full one, zeros elsewhere."""
    full = x.new_zeros(*alive.shape, x.shape[-1])
    for row, there, states in zip(full, alive != 0, x, strict=True):
        row[there] = states[x.shape[1] - int(there.sum()) :]
    return full
