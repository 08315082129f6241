"""draw_kept: the user's own picture with the patches that pruning kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageOps

from ..stats import VTPStats
from . import layout
from .geometry import Box, NoGrid, boxes, has_frames
from .paint import paint
from .views import View, views

ORIENTATION = 0x0112  # EXIF: how the stored raster is to be turned
PER_ROW = 4  # panels
FRAMES_PER_GROUP = 2  # of a video, at most: the temporal patch of packed towers


def draw_kept(
    image: Image.Image | Sequence[Image.Image],
    stats: VTPStats,
    processor=None,
    *,
    image_index: int = 0,
    stage: int | None = None,
    heat_map: bool = False,
    labels: bool | None = None,
    scale: int = 1,
) -> Image.Image:
    """The picture with dropped patches dimmed, kept ones clear, absorbed groups outlined; a new RGB image.

    A group has one colour: the token that stands for it is clear with a filled corner, those it absorbed are
    half dimmed, and the line around all of them has that colour. The part that the processor cropped away is
    pale and hatched; tokens on its padding lie outside the picture.

    Args:
        image: the picture that was given to the processor, of any mode; it is shown at its own size and,
            where its EXIF says so, turned. For a video it is the list of its frames, and the first frame of
            every group is shown.
        stats: `vtp_stats(model)` of the forward that saw it.
        processor: the image processor, or a processor that has one, whose padding and cropping are undone;
            not needed where tokens cover the whole picture.
        image_index: which image of that forward it is; videos come after images. Where the processor cuts a
            picture into several images, the first of them; each is shown by itself.
        stage: only this stage, from 0; -1 is the last. None draws one panel for each.
        heat_map: show the stage's scores, dark to bright, with the kept tokens outlined in white.
        labels: a line of text over each panel; None writes one where there are several, or a heat map.
            Without it a single picture comes back at its own size.
        scale: how many times as large to draw a picture, for small ones.

    Raises ValueError for an image, a stage or a scale that does not exist, for more pictures than the forward
    saw at that place or one without pixels, for a heat map of NaN, where the processor is needed and where
    no grid of the tokens is known; TypeError for what is no picture or no VTPStats.
    """
    if not isinstance(stats, VTPStats):
        raise TypeError(f"stats must be what vtp_stats(model) returns, not {type(stats).__name__}")
    found = [views(stats, image_index)]  # of each image, its stages
    if stage is not None:
        if not isinstance(stage, int) or not -len(found[0]) <= stage < len(found[0]):
            raise ValueError(f"stage must be from 0 to {len(found[0]) - 1}, or -1, not {stage!r}")
    if not isinstance(scale, int) or scale < 1:
        raise ValueError(f"scale must be a whole number of at least 1, not {scale!r}")
    grid = found[0][0].owner.shape
    frames = _frames(image, grid[0], processor)
    places = boxes(frames[0].size, grid, processor)
    if len(places) > 1 and len(places) != grid[0]:
        found += [views(stats, i) for i in _others(stats, image_index, len(places))]
    stages = list(zip(*found, strict=True))
    stages = stages if stage is None else [stages[stage]]
    for seen in stages:
        _refuse_unknown(seen, places[0], heat_map)
    labels = (len(stages) > 1 or heat_map) if labels is None else labels
    shrink = min(1.0, math.sqrt(layout.LARGEST_SHEET / (_area(frames) * scale**2 * len(stages))))
    panels = []
    for seen in stages:
        parts = _parts(frames, seen, places)
        drawn = [_panel(*part, scale * shrink, heat_map) for part in parts]
        panel = drawn[0] if len(drawn) == 1 else layout.wrapped(drawn, 2 * PER_ROW)
        if labels:
            panel = layout.titled(panel, describe(seen, heat_map), _letters(panel.width))
        panels.append(panel)
    if len(panels) == 1 and not labels:
        return panels[0]
    return layout.framed(layout.wrapped(panels, PER_ROW if len(parts) == 1 else 1))


def describe(seen: Sequence[View], heat_map: bool = False) -> str:
    """A stage in one line: its layer and the tokens kept, with a heat map also the range of the scores."""
    kept, tokens = sum(view.num_kept for view in seen), sum(view.num_tokens for view in seen)
    text = f"after layer {seen[0].layer}: {kept} of {tokens} tokens"
    scores = [view.scores[view.scores == view.scores] for view in seen if view.scores is not None]
    if heat_map and scores:
        low, high = min(map(min, scores)), max(map(max, scores))
        text += f", scores {low:.3g} (dark) to {high:.3g} (bright)"
    return text


def _others(stats: VTPStats, first: int, count: int) -> range:
    """The other images that a picture was cut into."""
    if first + count > len(stats.grids):
        raise NoGrid(
            f"this picture is cut into {count} images whose tokens are one sequence, so no grid is known"
        )
    return range(first + 1, first + count)


def _refuse_unknown(seen: Sequence[View], box: Box, heat_map: bool) -> None:
    """Raise NoGrid for tokens that lie in a line, and ValueError for a heat map of NaN."""
    for view in seen:
        _, rows, columns = view.owner.shape
        if rows == 1 and columns > 2 + 2 * (box[2] - box[0]) / (box[3] - box[1]):
            raise NoGrid(
                f"no grid of the {columns} tokens of this picture is known: the model lays them out in a line"
            )
        if heat_map and view.num_nan:
            raise ValueError(
                f"{view.num_nan} scores after layer {view.layer} are NaN, of which there is no heat map; "
                "look for NaN in the model's weights or the pixel values"
            )


def _parts(frames: list[Image.Image], seen: Sequence[View], places: list[Box]) -> list[tuple]:
    """What each panel of a stage shows: (picture, view, frame of the view, box, whether it is a cutting)."""
    if len(places) == 1:
        return [(frame, seen[0], t, places[0], False) for t, frame in enumerate(frames)]
    of_tiles = [(view, 0) for view in seen] if len(seen) > 1 else [(seen[0], t) for t in range(len(places))]
    width, height = frames[0].size
    return [
        (frames[0], *of_tile, box, True)
        for of_tile, box in zip(of_tiles, places, strict=True)
        if box[0] < width - 1 and box[1] < height - 1  # not padding alone
    ]


def _frames(image: Image.Image | Sequence[Image.Image], groups: int, processor) -> list[Image.Image]:
    """The first frame of each group of frames; a picture is a single one."""
    from ..tools.bench.decode import refuse_empty

    several = isinstance(image, Iterable) and not isinstance(image, Image.Image)
    frames = list(image) if several else [image]
    if not all(isinstance(frame, Image.Image) for frame in frames):
        kind = type(image).__name__
        raise TypeError(f"image must be a PIL image or the list of a video's frames, not {kind}")
    for frame in frames:
        refuse_empty(frame)
    moving = processor is None or has_frames(processor)
    if groups == 1 and len(frames) > (FRAMES_PER_GROUP if moving else 1):
        raise ValueError(
            f"this forward saw one picture at that place; give that one, not a list of {len(frames)} "
            "(image_index says which of a batch it is)"
        )
    if groups > 1 and not several and not moving:
        return frames  # the images that a picture was cut into
    if len(frames) < groups or (groups == 1 and not frames):
        raise ValueError(
            f"this forward saw {groups} groups of frames; give the list of all frames, not {len(frames)}"
        )
    together = math.ceil(len(frames) / groups)
    return [frames[min(t * together, len(frames) - 1)] for t in range(groups)]


def _panel(
    image: Image.Image, view: View, frame: int, box: Box, cut: bool, scale: float, heat_map: bool
) -> Image.Image:
    from ..tools.bench.decode import as_rgb

    # Processors see the stored raster, whatever EXIF says of it: drawn first, turned afterwards.
    picture = as_rgb(image)
    if cut:
        left, top = (max(0, round(edge)) for edge in box[:2])
        right, bottom = (min(n, round(edge)) for n, edge in zip(picture.size, box[2:], strict=True))
        picture = picture.crop((left, top, right, bottom))
        box = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    if scale != 1:
        size = tuple(max(1, round(edge * scale)) for edge in picture.size)
        box = tuple(x * size[i % 2] / picture.size[i % 2] for i, x in enumerate(box))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    panel = paint(picture, view, frame, box, heat_map)
    panel.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    return ImageOps.exif_transpose(panel)


def _area(frames: list[Image.Image]) -> int:
    return sum(frame.width * frame.height for frame in frames)


def _letters(width: int) -> int:
    """Height in pixels of a label's letters over a panel of that width."""
    return min(40, max(12, width // 28))
