"""The tokens of one image after one stage, in the raster of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..stats import VTPStats

DROPPED = -1  # in View.owner: at this stage or an earlier one


@dataclass(frozen=True)
class View:
    """One image after one stage; arrays are [frames, rows, columns].

    Attributes:
        layer: encoder layer after which the stage ran.
        owner: int, the group a token belongs to (a number from 0 to `num_kept` - 1), or DROPPED.
        kept: bool, whether the token is the one that stands for its group.
        scores: float, NaN for tokens that an earlier stage dropped; None where the stage kept all.
        num_kept: the number of tokens kept.
        num_nan: the number of tokens that entered the stage and got NaN for a score.
    """

    layer: int
    owner: np.ndarray
    kept: np.ndarray
    scores: np.ndarray | None
    num_kept: int
    num_nan: int = 0

    @property
    def num_tokens(self) -> int:
        return self.owner.size

    @property
    def absorbing(self) -> np.ndarray:
        """Whether each group holds more than the token that stands for it."""
        return np.bincount(self.owner[self.owner >= 0], minlength=self.num_kept) > 1


def views(stats: VTPStats, image_index: int = 0) -> list[View]:
    """One View per stage; raises ValueError if there is no such image."""
    if not isinstance(image_index, int) or not 0 <= image_index < len(stats.grids):
        raise ValueError(f"image_index must be from 0 to {len(stats.grids) - 1}, not {image_index!r}")
    grid = tuple(int(n) for n in stats.grids[image_index])
    count = int(np.prod(grid))
    owner = np.arange(count)  # the place of a token's group among those kept
    keep_indices = np.arange(count)  # raster indices of those kept
    found = []
    for stage in stats.stages:
        assignment = stage.assignment[image_index].cpu().numpy()
        owner = np.where(owner >= 0, assignment[owner.clip(min=0)], DROPPED)
        scores, num_nan = None, 0
        if stage.scores[image_index] is not None:
            scores = np.full(count, np.nan)
            scores[keep_indices] = stage.scores[image_index].float().cpu().numpy()
            num_nan = int(np.isnan(scores[keep_indices]).sum())
            scores = scores.reshape(grid)
        keep_indices = stage.keep_indices[image_index].cpu().numpy()
        kept = np.zeros(count, dtype=bool)
        kept[keep_indices] = True
        owners, num_kept = owner.reshape(grid), len(keep_indices)
        found.append(View(stage.layer, owners, kept.reshape(grid), scores, num_kept, num_nan))
    return found
