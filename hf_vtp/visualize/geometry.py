"""The part of a picture that tokens cover, worked out from the steps of its image processor."""

from __future__ import annotations

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the picture


def covered(size: tuple[int, int], grid: tuple[int, int, int], processor=None) -> Box:
    """The box that the token grid covers; it reaches beyond a picture that was padded.

    Args:
        size: width and height of the picture in pixels, as the processor got it.
        grid: (frames, rows, columns) of tokens.
        processor: the image processor, or a processor that has one; None where tokens cover the whole
            picture, as Qwen's do.

    Raises ValueError for None where tokens cannot cover the whole picture, and for a processor whose steps
    are not known.
    """
    if processor is None:
        _refuse_other_shape(size, grid)
        return 0.0, 0.0, float(size[0]), float(size[1])
    processor = getattr(processor, "image_processor", processor)
    if not hasattr(processor, "do_resize"):
        raise ValueError(f"{type(processor).__name__} is no image processor; give that of the model")
    if has_frames(processor):  # Qwen: resized as a whole to whole merge units
        return 0.0, 0.0, float(size[0]), float(size[1])
    width, height = size
    left = top = 0.0
    if getattr(processor, "do_pad", None):
        if not hasattr(processor, "pad_to_square"):
            raise ValueError(
                f"{type(processor).__name__} pads in a way that is not known; choose do_pad=False"
            )
        side = max(width, height)
        left, top = -((side - width) // 2), -((side - height) // 2)
        width = height = side
    new_width, new_height = _resized(width, height, processor)
    per_x, per_y = width / new_width, height / new_height  # pixels of the picture in one the model sees
    if getattr(processor, "do_center_crop", None):
        crop_width, crop_height = (_edge(processor.crop_size, name) for name in ("width", "height"))
        left += (new_width - crop_width) // 2 * per_x
        top += (new_height - crop_height) // 2 * per_y
        new_width, new_height = crop_width, crop_height
    return left, top, left + new_width * per_x, top + new_height * per_y


def has_frames(processor) -> bool:
    """Whether this (image) processor's output has a frame axis, as Qwen's has for videos."""
    return bool(getattr(getattr(processor, "image_processor", processor), "merge_size", None))


def _resized(width: int, height: int, processor) -> tuple[int, int]:
    if not getattr(processor, "do_resize", None):
        return width, height
    edges = {
        name: _edge(processor.size, name) for name in ("shortest_edge", "longest_edge", "height", "width")
    }
    if edges["height"] and edges["width"]:
        return edges["width"], edges["height"]
    if edges["shortest_edge"] and not edges["longest_edge"]:
        short = edges["shortest_edge"]
        long = int(short * max(width, height) / min(width, height))
        return (short, long) if width <= height else (long, short)
    raise ValueError(
        f"{type(processor).__name__} resizes to {processor.size}, which is not known; choose a size of "
        "height and width or of shortest_edge"
    )


def _edge(size, name: str) -> int | None:
    return size.get(name) if isinstance(size, dict) else getattr(size, name, None)


def _refuse_other_shape(size: tuple[int, int], grid: tuple[int, int, int]) -> None:
    """Raise ValueError unless the tokens would be about square, as those of a whole picture are."""
    (width, height), (_, rows, columns) = size, grid
    if abs(rows - columns * height / width) > max(1.0, height / width):
        raise ValueError(
            f"{rows} x {columns} tokens cannot cover a picture of {width} x {height} pixels evenly; give the "
            "image processor, which knows how it was cropped or padded"
        )
