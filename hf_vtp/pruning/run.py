"""What one forward of a tower decided."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .stage import Outcome

RUN = "vtp_run"  # the keyword argument that carries a Run from the tower to its layers


@dataclass
class Group:
    """Images of one size, and so of one count, that a stage prunes together."""

    images: range | list[int]
    # [B, K] raster index of what the stage kept, -1 for padding; None = everything is there still
    positions: Tensor | None
    sizes: Tensor | None  # [B, K] float32, original tokens each one stands for, 0 for padding; None = one
    outcome: Outcome | None  # None = nothing was to be dropped
    order: Tensor | None = None  # [B, K] see VisionTokens


@dataclass
class Run:
    """What one forward of a tower decided.

    It rides along in the layers' keyword arguments, because gradient checkpointing runs layers again with the
    arguments of the first time: a replay finds the choices of its own forward, however many came in between.
    """

    grids: list[tuple[int, int, int]]  # (frames, rows, columns) of each image, in tokens
    # what the tower's pattern keeps for its later layers, of the pattern's own type; made here because
    # torch.compile loses what is put into a dict that was handed to __init__
    layout: object = field(default_factory=dict)
    stages: dict[int, list[Group]] = field(default_factory=dict)  # by layer
    # by layer, what a method asked to observe of it, of the tokens still there
    seen: dict[int, Tensor] = field(default_factory=dict)
    # bool [], whether a kept row was NaN where dropped ones are marked by it; None = nothing was marked
    overflow: Tensor | None = None
