"""When tokens leave: the layers of a config as stages, and how several of them share the reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .methods.layers import SCHEDULES, default_layers
from .methods.table import METHODS

if TYPE_CHECKING:
    from .config import VTPConfig

OUTPUT = "output"


def shares(ratio: float, count: int, schedule: str) -> list[float]:
    """Shares of the original count kept after each of `count` stages; the last is `ratio`."""
    return [SCHEDULES[schedule](ratio, i / count) for i in range(1, count)] + [ratio]


def stages(
    config: VTPConfig,
    num_layers: int,
    what: str = "the encoder",
    has_output: bool = False,
) -> list[tuple[int, float]]:
    """(layer, share of the original count kept after it) for every stage, layers ascending.

    `num_layers` is the number of layers after which pruning has an effect; "output" is the last of them.
    Without a layer the method's own place counts, where it has one that the model has (`has_output`: whether
    anything follows the tower); else `default_layers`. Raises ValueError for a layer that is not there, and
    for another number of ratios than of layers.
    """
    method, layer = METHODS[config.method], config.layer
    if layer is None:
        layer = default_layers(num_layers)
        if callable(method.layers):
            layer = method.layers(num_layers)
        elif method.layers == OUTPUT and has_output:
            layer = OUTPUT
    layer = num_layers - 1 if layer == OUTPUT else layer
    layers = [layer] if isinstance(layer, int) else list(layer)
    outside = [i for i in layers if not 0 <= i < num_layers]
    if outside:
        raise ValueError(f"layer {outside[0]} is beyond {what}; choose from 0 to {num_layers - 1}")
    ratios = config.keep_ratio
    if not isinstance(ratios, list):
        ratios = shares(ratios, len(layers), method.sharing)
    if len(ratios) != len(layers):
        raise ValueError(f"keep_ratio has {len(ratios)} shares for {len(layers)} layers; give one per layer")
    return list(zip(layers, ratios, strict=True))
