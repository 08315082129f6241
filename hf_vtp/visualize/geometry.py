"""The parts of a picture that a model's images show, measured on what its image processor makes of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the picture
FAR = 250  # the value of red at the right edge and of green at the lower one; padding may be 255
FEW = 8  # columns or rows; where there are more, those at the ends are not measured, as resampling bends them
PLAIN = dict(do_normalize=False, do_rescale=False)


class NoGrid(ValueError):
    """Where tokens lie in a picture is not known."""


def covered(size: tuple[int, int], grid: tuple[int, int, int], processor=None) -> Box:
    """The box that the token grid of a picture's first image covers; see `boxes`."""
    return boxes(size, grid, processor)[0]


def boxes(size: tuple[int, int], grid: tuple[int, int, int], processor=None) -> list[Box]:
    """The box that each image covers that a model makes of a picture; it reaches beyond one that was padded.

    Args:
        size: width and height of the picture in pixels, as the processor got it.
        grid: (frames, rows, columns) of tokens.
        processor: the image processor, or a processor that has one; None where tokens cover the whole
            picture.

    Raises ValueError for None where tokens cannot cover the whole picture, and NoGrid where the processor
    cuts pictures in a way that cannot be measured.
    """
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    if processor is None:
        _refuse_other_shape(size, grid)
        return [whole]
    processor = getattr(processor, "image_processor", processor)
    if not hasattr(processor, "do_resize"):
        raise ValueError(f"{type(processor).__name__} is no image processor; give that of the model")
    if has_frames(processor):  # the picture is resized to full merge units, and nothing is cropped
        return [whole]
    made = processor(images=[coordinates(*size)], return_tensors="pt", **PLAIN)
    pixels = made["pixel_values"]
    if pixels.dim() in (4, 5) and pixels.shape[-3] == 3:
        return [_box(image.float().numpy(), size) for image in pixels.flatten(0, -4)]
    if len(pixels) > 1:
        raise NoGrid(
            f"{type(processor).__name__} packs {len(pixels)} images made of this picture, and where they lie "
            "in it is not known; give a smaller picture, which is one image"
        )
    return [whole]  # one image in patches


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red says how far to the right a pixel is, and whose green how far down."""
    x, y = (np.linspace(0, FAR, n).round().astype(np.uint8) for n in (width, height))
    return Image.fromarray(np.stack([*np.meshgrid(x, y), np.full((height, width), 255, np.uint8)], axis=-1))


def has_frames(processor) -> bool:
    """Whether this (image) processor's output has a frame axis for videos, and covers whole pictures."""
    return bool(getattr(getattr(processor, "image_processor", processor), "merge_size", None))


def _box(image: np.ndarray, size: tuple[int, int]) -> Box:
    """The box of an image [3, H, W] of coordinates; beyond the picture if it shows padding alone."""
    red, green, blue = image
    on = (blue > FAR + 2) & (red < FAR + 2) & (green < FAR + 2)  # the picture, and no padding of any colour
    sides = _ends(red, on, size[0]), _ends(green.T, on.T, size[1])
    if None in sides:
        return float(size[0]), float(size[1]), 2.0 * size[0], 2.0 * size[1]
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def _ends(values: np.ndarray, on: np.ndarray, length: int) -> tuple[float, float] | None:
    """Where the first column begins and the last one ends, in pixels of a picture of that width.

    `values` [H, W] rise with the columns of the picture where it is `on`, in a line, which is found here.
    """
    counts = on.sum(axis=0)
    columns = np.flatnonzero(2 * counts >= max(2, counts.max()))
    if len(columns) >= FEW:
        columns = columns[2:-2]
    if len(columns) < 2:
        return None
    # the median, which rows beside padding do not shift
    found = np.nanmedian(np.where(on, values, np.nan)[:, columns], axis=0)
    places = found * (length - 1) / FAR + 0.5
    inside = (places > 1.5) & (places < length - 1.5)  # beyond them resampling repeats the edge
    if inside.sum() > 1:
        columns, places = columns[inside], places[inside]
    per_column, start = np.polyfit(columns, places, 1) if length > 1 else (1 / values.shape[1], 0.0)
    return float(start - per_column / 2), float(start + per_column * (values.shape[1] - 0.5))


def _refuse_other_shape(size: tuple[int, int], grid: tuple[int, int, int]) -> None:
    """Raise ValueError unless the tokens would be about square, as those of a whole picture are."""
    (width, height), (_, rows, columns) = size, grid
    if abs(rows - columns * height / width) > max(1.0, height / width):
        raise ValueError(
            f"{rows} x {columns} tokens cannot cover a picture of {width} x {height} pixels evenly; give the "
            "image processor, which knows how it was cropped or padded"
        )
