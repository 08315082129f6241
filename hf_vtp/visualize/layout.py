"""Panels with labels beside each other on one sheet."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (255, 255, 255), (24, 24, 27)
GAP = 8  # pixels between panels
SMALLEST = 9  # pixels of a letter; below it a label is cut with an ellipsis
LARGEST_SHEET = 64_000_000  # pixels; larger ones are reduced


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def label(text: str, width: int, size: int) -> Image.Image:
    """One line of text, `width` pixels wide, in letters of about `size` pixels or as small as it takes."""
    while font(size).getlength(text) > width - 4 and size > SMALLEST:
        size -= 1
    while font(size).getlength(text) > width - 4 and len(text) > 1:
        text = text[:-2].rstrip() + "…"
    strip = Image.new("RGB", (width, round(size * 1.6)), PAPER)
    ImageDraw.Draw(strip).text((2, round(size * 0.2)), text, fill=INK, font=font(size))
    return strip


def titled(panel: Image.Image, text: str, size: int) -> Image.Image:
    """The panel under its label."""
    return stack([label(text, panel.width, size), panel], gap=0)


def stack(rows: list[Image.Image], gap: int = GAP) -> Image.Image:
    """Images under each other, flush left."""
    height = sum(row.height for row in rows) + gap * (len(rows) - 1)
    sheet = Image.new("RGB", (max(row.width for row in rows), height), PAPER)
    y = 0
    for row in rows:
        sheet.paste(row, (0, y))
        y += row.height + gap
    return sheet


def beside(columns: list[Image.Image], gap: int = GAP) -> Image.Image:
    """Images beside each other, flush at the bottom."""
    width = sum(column.width for column in columns) + gap * (len(columns) - 1)
    sheet = Image.new("RGB", (width, max(column.height for column in columns)), PAPER)
    x = 0
    for column in columns:
        sheet.paste(column, (x, sheet.height - column.height))
        x += column.width + gap
    return sheet


def wrapped(panels: list[Image.Image], per_row: int) -> Image.Image:
    """Panels in rows of at most so many."""
    return stack([beside(panels[i : i + per_row]) for i in range(0, len(panels), per_row)])


def framed(sheet: Image.Image) -> Image.Image:
    """With a margin of paper around it."""
    paper = Image.new("RGB", (sheet.width + 2 * GAP, sheet.height + 2 * GAP), PAPER)
    paper.paste(sheet, (GAP, GAP))
    return paper
