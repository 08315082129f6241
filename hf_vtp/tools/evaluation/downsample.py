"""The baseline that any user can have without pruning: a smaller image."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image
from torch import nn

from ...pruning.tokens import num_keep
from ..image_processors import square

STRETCH = "interpolate_pos_encoding"  # the argument of Transformers' towers


def nearest_grid(rows: int, columns: int, keep_ratio: float) -> tuple[int, int]:
    """Rows and columns of a grid of about that shape whose number of tokens is nearest to the share kept.

    Among grids as near, the one whose shape is most like the original's.
    """
    wanted = num_keep(rows * columns, keep_ratio)

    def badness(grid: tuple[int, int]) -> tuple[float, float]:
        r, c = grid
        return abs(r * c - wanted), abs(r * columns - c * rows)

    shapes = [(r, max(1, round(r * columns / rows))) for r in range(1, rows + 1)]
    shapes += [(max(1, round(c * rows / columns)), c) for c in range(1, columns + 1)]
    return min(shapes, key=badness)


def smaller(
    image_processor, config, images: Sequence[Image.Image], keep_ratio: float
) -> tuple[list[Image.Image], dict]:
    """Images, and arguments of the image processor, that make about that share of a model's image tokens.

    `config` is the model's. Where images are of one size the processor makes smaller squares; where each has
    a grid of its own, in units of `merge_size` patches, they are resized to a smaller one.
    """
    patch = config.vision_config.patch_size
    merge = getattr(image_processor, "merge_size", None)
    if not merge:
        side = config.vision_config.image_size // patch
        return list(images), square(image_processor, nearest_grid(side, side, keep_ratio)[0] * patch)
    unit, resized = merge * patch, []
    grids = image_processor(images=list(images), return_tensors="pt")["image_grid_thw"].tolist()
    for image, (_, rows, columns) in zip(images, grids, strict=True):
        rows, columns = nearest_grid(rows // merge, columns // merge, keep_ratio)
        resized.append(image.resize((columns * unit, rows * unit), Image.Resampling.BICUBIC))
    longest = dict(image_processor.size)["longest_edge"]
    return resized, {"size": {"shortest_edge": unit**2, "longest_edge": longest}}


@contextmanager
def any_size(model: nn.Module) -> Iterator[None]:
    """Let a tower whose images are of one size take others, its position embeddings stretched."""

    def stretch(module, args, kwargs):
        return args, {**kwargs, STRETCH: True}

    handles = [
        module.register_forward_pre_hook(stretch, with_kwargs=True)
        for module in _outermost_stretchable(model)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _outermost_stretchable(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if STRETCH in inspect.signature(type(child).forward).parameters:
            yield child
        else:
            yield from _outermost_stretchable(child)
