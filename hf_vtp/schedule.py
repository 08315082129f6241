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


def work(layers: list[int], ratios: list[float], num_layers: int) -> float:
    """Tokens in all layers, as a share of those of an unpruned tower."""
    ends = [*layers[1:], num_layers - 1]
    spared = ((1 - ratio) * (end - layer) for layer, end, ratio in zip(layers, ends, ratios, strict=True))
    return 1 - sum(spared) / num_layers


def shares_of(flops: float, layers: list[int], num_layers: int, schedule: str) -> list[float]:
    """The shares with which `flops` of the work is left; raises ValueError where no ratio saves so much."""
    low, high = 0.0, 1.0
    least = work(layers, shares(low, len(layers), schedule), num_layers)
    if flops < least:
        raise ValueError(
            f"flops={flops:g} cannot be reached by tokens that leave after {layers} of {num_layers} layers; "
            f"choose more than {least:.2f}, or earlier layers"
        )
    for _ in range(50 if flops < 1 else 0):
        ratio = (low + high) / 2
        if work(layers, shares(ratio, len(layers), schedule), num_layers) > flops:
            high = ratio
        else:
            low = ratio
    return shares(high, len(layers), schedule)


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
    if config.flops is not None:
        ratios = shares_of(config.flops, layers, num_layers, method.sharing)
    elif not isinstance(ratios, list):
        ratios = shares(ratios, len(layers), method.sharing)
    if len(ratios) != len(layers):
        raise ValueError(f"keep_ratio has {len(ratios)} shares for {len(layers)} layers; give one per layer")
    return list(zip(layers, ratios, strict=True))
