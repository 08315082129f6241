"""Features that an encoder returned, as rows of each image on the grid that they come from."""

from __future__ import annotations

import math

from torch import Tensor

from .rows import Grid

Features = Tensor | list[Tensor] | tuple[Tensor, ...]


def images_of(
    features: Features, in_prompts: list[int], pixels: Tensor, thw: Tensor | None
) -> tuple[list[Tensor], list[Grid]]:
    """Rows [T, D] of each image or video, and the grid they lie on: a line where nothing says more.

    `in_prompts` are the placeholders of each prompt: where an encoder returns all images as one [T, D], those
    of a prompt are one image, so that no prompt depends on another. `pixels` and `thw` [images, 3], grids of
    patches, are what the encoder was given. What an image's grid is taken for depends on no other image.
    """
    if isinstance(features, Tensor) and features.dim() == 2:
        sizes = _sizes(thw, len(features)) or [count for count in in_prompts if count]
        parts = list(features.split(sizes)) if sum(sizes) == len(features) else [features]
        pixels = None
    else:
        parts = list(features)
    known = thw.tolist() if thw is not None and len(thw) == len(parts) else [None] * len(parts)
    frames, shape = 1, None  # of each image, and of its pixels
    if pixels is not None and pixels.dim() in (4, 5):
        frames = pixels.shape[1] if pixels.dim() == 5 and len(pixels) == len(parts) else 1
        # of a list each image has a size of its own, and pixels are padded to the largest
        shape = pixels.shape[-2:] if isinstance(features, Tensor) else (1, 1)
    rows = [part.flatten(0, -2) for part in parts]
    return rows, [_grid(part.shape[:-1], thw, frames, shape) for part, thw in zip(parts, known, strict=True)]


def _grid(axes: tuple[int, ...], thw: list[int] | None, frames: int, shape: tuple[int, int] | None) -> Grid:
    """The grid of one image whose features have these axes before the last one."""
    length = math.prod(axes)
    found = _merged(thw, length) if thw else None
    if found is None and len(axes) > 1 and axes[0] != frames:
        found = (math.prod(axes[:-2]), *axes[-2:])
    if found is None and shape:
        found = _like(shape, frames, length) or _like(shape, 1, length)
    return found or (1, 1, length)


def _sizes(thw: Tensor | None, length: int) -> list[int]:
    """Rows of each image among `length`, where patches are merged by the same number everywhere."""
    patches = [] if thw is None else thw.prod(dim=-1).tolist()
    return [] if not length or sum(patches) % length else [n * length // sum(patches) for n in patches]


def _merged(thw: list[int], length: int) -> Grid | None:
    """A grid of patches as one of squares of them, or of those of all frames together, `length` in all."""
    t, h, w = thw
    for frames in (t, 1):
        side = math.isqrt(frames * h * w // length) if length else 0
        if side and frames * h * w == length * side**2 and h % side == 0 == w % side:
            return frames, h // side, w // side
    return None


def _like(shape: tuple[int, int], frames: int, length: int) -> Grid | None:
    """A grid of `length` tokens in frames as much wider than high as this shape."""
    height, width = shape
    rows = math.isqrt(length * height // (frames * width))
    columns = rows * width // height
    return (frames, rows, columns) if rows and frames * rows * columns == length else None
