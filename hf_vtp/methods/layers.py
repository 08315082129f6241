"""Where methods act unless the user says, by the number of layers, and how stages share the reduction."""

from __future__ import annotations

from collections.abc import Callable

# by name, the share of the original count that is kept after a part of the stages, of the final ratio
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    # the more tokens stay, the later the others leave: chosen on real weights, see docs/leaderboard.md
    "late": lambda ratio, part: ratio ** (part ** (1 + 1.5 * ratio)),
    "geometric": lambda ratio, part: ratio**part,  # every stage keeps the same share of what it gets
    "linear": lambda ratio, part: 1 - (1 - ratio) * part,  # every stage drops as many
}
DEPTHS = tuple((layer + 0.5) / 12 for layer in (2, 3, 5, 6, 8))  # chosen likewise


def default_layers(num_layers: int) -> list[int]:
    """After five layers, from a fifth to two thirds of the depth."""
    return sorted({int(num_layers * depth) for depth in DEPTHS})


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
