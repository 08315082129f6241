"""contact_sheet: images, methods and ratios beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from ..apply import vtp, vtp_stats
from . import layout
from .kept import draw_kept
from .preview import answers, preview, reading_text

MOST_CELLS = 1000
LETTERS = 15  # pixels


def contact_sheet(
    model,
    processor,
    images: Sequence[Image.Image],
    methods: Sequence[str] = ("vtp", "qk_topk", "random", "uniform"),
    keep_ratios: Sequence[float] = (0.7, 0.5, 0.25),
    *,
    layer: int | list[int] | str | None = None,
    heat_map: bool = False,
    text: str | None = None,
    tokenizer=None,
    panel: int = 224,
) -> Image.Image:
    """A sheet with one row per image and method, one column per ratio, and the image itself in front.

    The model runs once for each picture on the sheet, and is pruned afterwards as it was before. The last of
    several stages is shown.

    Args:
        model: any model that can be pruned.
        processor: its image processor, or a processor that has one (and a tokenizer).
        images: pictures of any sizes and modes; where their EXIF says so, they are turned first.
        layer: where tokens leave, as in VTPConfig.
        heat_map: show the scores of the first stage instead.
        text: a question, for methods that compare tokens with the prompt; needs the tokenizer.
        panel: longer side of a picture in pixels.

    Raises ValueError for what VTPConfig refuses, for no images, methods or ratios, and for too many or too
    large ones; TypeError where one is given instead of a list.
    """
    from ..tools.bench.decode import upright_rgb  # here: importing hf_vtp.visualize imports none of the tools

    for name, given in (("images", images), ("methods", methods), ("keep_ratios", keep_ratios)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise TypeError(f"{name} must be a list, not {type(given).__name__}")
    if wrong := [image for image in images if not isinstance(image, Image.Image)]:
        raise TypeError(f"images must be PIL images, not {type(wrong[0]).__name__}")
    cells = len(images) * len(methods) * len(keep_ratios)
    if not 0 < cells <= MOST_CELLS:
        raise ValueError(f"a contact sheet has 1 to {MOST_CELLS} pictures, not {cells}; choose fewer or more")
    if not isinstance(panel, int) or panel < 32:
        raise ValueError(f"panel must be at least 32 pixels, a whole number, not {panel}")
    if cells * panel**2 > layout.LARGEST_SHEET:
        most = math.isqrt(layout.LARGEST_SHEET // cells)
        raise ValueError(f"panel must be at most {most} pixels on a sheet of {cells} pictures, not {panel}")
    if text is not None and tokenizer is None and not hasattr(processor, "tokenizer"):
        raise ValueError("text needs the model's tokenizer; give tokenizer= or a processor that has one")
    if answers(model) and not text and (asking := reading_text(methods)):
        raise ValueError(f"{asking[0]} compares image tokens with a question; give one as text")
    processor = _with_tokenizer(model, processor, tokenizer if text is not None and answers(model) else None)
    margin = max(layout.font(LETTERS).getlength(method) for method in methods)
    blocks = [
        _block(model, processor, image, methods, keep_ratios, layer, heat_map, text, panel, int(margin) + 6)
        for image in map(upright_rgb, images)
    ]
    return layout.framed(layout.stack(blocks, gap=2 * layout.GAP))


def _with_tokenizer(model, processor, tokenizer):
    """The processor with that tokenizer, None: as it is."""
    if tokenizer is None:
        return processor
    from ..tools.processors import assemble

    return assemble(model.config, getattr(processor, "image_processor", processor), tokenizer)


def _block(
    model, processor, image, methods, keep_ratios, layer, heat_map, text, panel, margin
) -> Image.Image:
    """The rows of one image (RGB, upright)."""
    rows, plain = [], thumbnail(image, panel)
    for i, method in enumerate(methods):
        drawn = []
        for ratio in keep_ratios:
            with vtp(model, method=method, keep_ratio=ratio, layer=layer):
                preview(model, processor, image, text)
                stats = vtp_stats(model)
            stage = 0 if heat_map else -1
            kept = draw_kept(image, stats, processor, stage=stage, heat_map=heat_map, labels=False)
            picture = thumbnail(kept, panel)
            count = f"keep {ratio:g}: {sum(stats.num_kept)} of {sum(stats.num_tokens)}"
            drawn.append(layout.titled(picture, count, LETTERS))
        first = plain if i == 0 else Image.new("RGB", plain.size, layout.PAPER)
        rows.append(layout.beside([_side(method, plain.height, margin), first, *drawn]))
    return layout.stack(rows)


def _side(method: str, height: int, width: int) -> Image.Image:
    """The method's name, for the left of its row."""
    strip = Image.new("RGB", (width, height), layout.PAPER)
    name = layout.label(method, width, LETTERS)
    strip.paste(name, (0, (height - name.height) // 2))
    return strip


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """The picture with `side` pixels on its longer side, enlarged if it is smaller."""
    ratio = side / max(picture.size)
    size = tuple(max(1, round(edge * ratio)) for edge in picture.size)
    return picture.resize(size, Image.Resampling.LANCZOS)
