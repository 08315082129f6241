"""Colours that differ in lightness as well as in hue, for readers who do not tell all hues apart."""

from __future__ import annotations

import colorsys
from itertools import count, islice

import numpy as np

Colour = tuple[int, int, int]
FIRST: tuple[Colour, ...] = (  # of Okabe and Ito, made for colour-blind readers; without black
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
GOLDEN = 0.618034  # turns of the colour wheel between one group and the next: neighbours are far apart
LIGHTNESS = (0.45, 0.7, 0.57, 0.82)
# from dark to bright, evenly in lightness, and so readable without hue: points of matplotlib's viridis (CC0)
SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def group_colours(number: int) -> list[Colour]:
    """`number` colours, no two of them the same."""
    found = dict.fromkeys(FIRST)
    for i in count():
        if len(found) >= number:
            return list(islice(found, number))
        lightness = LIGHTNESS[i % len(LIGHTNESS)] + 0.04 * np.sin(i)
        rgb = colorsys.hls_to_rgb((0.1 + i * GOLDEN) % 1, lightness, 0.75 + 0.2 * np.cos(i))
        found.setdefault(tuple(round(255 * x) for x in rgb))


def heat_colours(scores: np.ndarray) -> np.ndarray:
    """RGB [..., 3] in uint8 by place between the lowest and the highest score; NaN becomes the lowest."""
    finite = scores[np.isfinite(scores)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    place = np.nan_to_num((scores - low) / (high - low) if high > low else np.full(scores.shape, 0.5))
    stops = np.linspace(0, 1, len(SCALE))
    bands = [np.interp(place, stops, [colour[band] for colour in SCALE]) for band in range(3)]
    return np.stack(bands, axis=-1).round().astype(np.uint8)
