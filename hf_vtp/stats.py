"""VTPStats: what the last forward kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .pruning.run import Group, Run


@dataclass(frozen=True, repr=False)
class StageStats:
    """One stage; every list has one entry per image.

    Attributes:
        layer: encoder layer after which it ran.
        keep_indices: LongTensor [K], ascending raster indices (of the whole image) of the tokens it kept.
        assignment: LongTensor [N], for every token that entered the stage the place of its group in
            `keep_indices`; -1 where it was dropped.
        sizes: float tensor [K], how many original tokens each kept one stands for.
        scores: float tensor [N] of the tokens that entered, higher = kept; None where nothing was to leave.
    """

    layer: int
    keep_indices: list[Tensor]
    assignment: list[Tensor]
    sizes: list[Tensor]
    scores: list[Tensor | None]

    def __repr__(self) -> str:
        kept, entered = _span(map(_length, self.keep_indices)), _span(map(_length, self.assignment))
        images = _number(len(self.keep_indices), "image")
        return f"StageStats(layer={self.layer}, {images}: {kept} of {entered} tokens stay)"


@dataclass(frozen=True, repr=False)
class VTPStats:
    """The last forward of a pruned model; every list has one entry per image, in the order they were given.

    Attributes:
        num_tokens: patch tokens (or merge units) of the image; prefix tokens are not counted.
        num_kept: how many of them are kept at the end.
        keep_indices: LongTensor [K], ascending raster indices of what is kept; where tokens were merged, of
        the
            one that represents its group.
        grids: (frames, rows, columns) of the image in tokens.
        stages: one StageStats per stage.
    """

    num_tokens: list[int]
    num_kept: list[int]
    keep_indices: list[Tensor]
    grids: list[tuple[int, int, int]]
    stages: list[StageStats]

    def __repr__(self) -> str:
        kept = f"{_span(self.num_kept)} of {_span(self.num_tokens)} tokens stay"
        layers = ", ".join(str(stage.layer) for stage in self.stages[:8]) + ", …" * (len(self.stages) > 8)
        stages = f"{_number(len(self.stages), 'stage')}, after layer {layers}"
        return f"VTPStats({_number(len(self.num_tokens), 'image')}: {kept}; {stages})"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


def _span(numbers: Iterable[int]) -> str:
    numbers = sorted(set(numbers)) or [0]
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _length(x: Tensor | None) -> int:
    return 0 if x is None else len(x)


def collect(run: Run) -> VTPStats:
    """VTPStats of a run. Indices are put together here, so that a forward does not pay for them."""
    counts = [frames * rows * columns for frames, rows, columns in run.grids]
    kept: list[Tensor | None] = [None] * len(counts)  # raster indices of what each image still has
    stages = []
    for layer, groups in run.stages.items():
        stage = StageStats(layer, *([None] * len(counts) for _ in range(4)))
        for group in groups:
            for b, image in enumerate(group.images):
                kept[image] = _fill(stage, image, group, b, kept[image], counts[image])
        stages.append(stage)
    return VTPStats(counts, [len(index) for index in kept], kept, list(run.grids), stages)


def joined(parts: list[VTPStats]) -> VTPStats:
    """Statistics of several runs of one tower (images, then videos) as one."""
    stages = [
        StageStats(same[0].layer, *(sum((getattr(s, name) for s in same), []) for name in PER_IMAGE))
        for same in zip(*(part.stages for part in parts), strict=True)
    ]
    names = ("num_tokens", "num_kept", "keep_indices", "grids")
    return VTPStats(*(sum((getattr(part, name) for part in parts), []) for name in names), stages)


PER_IMAGE = ("keep_indices", "assignment", "sizes", "scores")


def _fill(stage: StageStats, image: int, group: Group, b: int, entered: Tensor | None, count: int) -> Tensor:
    """Write one image's entries of a stage; returns the raster indices of what the stage kept of it."""
    outcome = group.outcome
    device = None if outcome is None else outcome.keep.device
    index = torch.arange(count, device=device) if entered is None else entered
    keep = torch.arange(len(index), device=index.device) if outcome is None else outcome.keep[b]
    keep = keep[keep >= 0]  # without padding
    if outcome is None or outcome.assignment is None:
        assignment = torch.full_like(index, -1)
        assignment[keep] = torch.arange(len(keep), device=index.device)
    else:
        assignment = outcome.assignment[b, : len(index)]
    ones = torch.ones(len(keep), dtype=torch.float32, device=index.device)
    sizes = ones if group.sizes is None else group.sizes[b, : len(keep)]
    stage.keep_indices[image], stage.assignment[image], stage.sizes[image] = index[keep], assignment, sizes
    stage.scores[image] = None if outcome is None else outcome.scores[b, : len(index)]
    return index[keep]
