"""When tokens leave: the layers of a config as stages, and how several of them share the reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .methods.table import METHODS

if TYPE_CHECKING:
    from .config import VTPConfig

OUTPUT = "output"
# by name, the share of the original count that is kept after a part of the stages, of the final ratio
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "geometric": lambda ratio, part: ratio**part,  # every stage keeps the same share of what it gets
    "linear": lambda ratio, part: 1 - (1 - ratio) * part,  # every stage drops as many
}


def shares(ratio: float, count: int, schedule: str) -> list[float]:
    """Shares of the original count kept after each of `count` stages; the last is `ratio`."""
    return [SCHEDULES[schedule](ratio, i / count) for i in range(1, count)] + [ratio]


def at_output(config: VTPConfig) -> bool:
    """Whether tokens leave at the output of a tower, by the config or else by its method."""
    return OUTPUT == (METHODS[config.method].layers if config.layer is None else config.layer)


def stages(
    config: VTPConfig,
    num_layers: int,
    default_layer: int,
    what: str = "the encoder",
    has_output: bool = False,
) -> list[tuple[int, float]]:
    """(layer, share of the original count kept after it) for every stage, layers ascending.

    `num_layers` is the number of layers after which pruning has an effect; "output" is the last of them.
    Without a layer the method's own place counts, where it has one that the model has (`has_output`: whether
    anything follows the tower); else the family's `default_layer`. Raises ValueError for a layer that is not
    there, and for another number of ratios than of layers.
    """
    method, layer = METHODS[config.method], config.layer
    if layer is None:
        layer = default_layer
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
        ratios = shares(ratios, len(layers), method.schedule)
    if len(ratios) != len(layers):
        raise ValueError(f"keep_ratio has {len(ratios)} shares for {len(layers)} layers; give one per layer")
    return list(zip(layers, ratios, strict=True))
