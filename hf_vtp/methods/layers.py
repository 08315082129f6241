"""Where a method acts unless the user says: layers of a tower, by how many it has."""

from __future__ import annotations

from collections.abc import Callable


def every_layer(num_layers: int) -> list[int]:
    """After every layer."""
    return list(range(num_layers))


def every_other_layer(num_layers: int) -> list[int]:
    """After every other layer, from the second on."""
    return list(range(1, num_layers, 2)) or [0]


def at(*shares: float) -> Callable[[int], list[int]]:
    def layers(num_layers: int) -> list[int]:
        return sorted({int(num_layers * share) for share in shares})

    layers.__doc__ = f"After {len(shares)} layers spread over the depth."
    return layers
