"""One panel: a picture with its dropped patches dimmed, or its scores as a heat map."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from .colours import group_colours, heat_colours
from .geometry import Box
from .views import View

DARK = (58, 60, 70)  # what dropped patches fade to
DROPPED_DIM, ABSORBED_DIM, OUTSIDE_DIM = 0.76, 0.45, 0.55  # shares of the way to DARK, or to white
HATCH = (150, 152, 158)
HEAT = 0.72  # share of the heat map's colour over the picture
SIDES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # rows and columns to the left, right, upper and lower neighbour


def paint(picture: Image.Image, view: View, frame: int, box: Box, heat_map: bool) -> Image.Image:
    """One frame of `picture` (RGB) with the view drawn on it; `box` is the part that its tokens cover."""
    cells = Cells(picture.size, view.owner.shape[1:], box)
    owner, kept = view.owner[frame], view.kept[frame]
    if heat_map and view.scores is not None:
        panel = _heated(picture, view, frame, cells)
    else:
        amount = np.where(kept, 0.0, np.where(owner >= 0, ABSORBED_DIM, DROPPED_DIM))
        panel = Image.composite(_faded(picture), picture, cells.mask(amount))
        colours = group_colours(view.num_kept)
        for group in np.flatnonzero(view.absorbing):
            _outline(panel, cells, owner == group, colours[group])
            _mark(panel, cells, (owner == group) & kept, colours[group])
    return _hatched(panel, cells)


class Cells:
    """The place of each token of a frame in the picture, in whole pixels.

    Attributes:
        xs, ys: int [columns + 1] and [rows + 1], the edges between tokens, clipped to the picture.
        line: width of an outline in pixels.
    """

    def __init__(self, size: tuple[int, int], shape: tuple[int, int], box: Box):
        (self.width, self.height), (rows, columns), (left, top, right, bottom) = size, shape, box
        self.xs = np.linspace(left, right, columns + 1).round().astype(int).clip(0, self.width)
        self.ys = np.linspace(top, bottom, rows + 1).round().astype(int).clip(0, self.height)
        smaller = min((right - left) / columns, (bottom - top) / rows)
        self.line = max(1, round(smaller / 9))

    def mask(self, amount: np.ndarray) -> Image.Image:
        """8-bit mask of the picture's size out of shares [rows, columns] between 0 and 1; 0 outside."""
        levels = (255 * amount).round().astype(np.uint8)
        return self.fill(levels, 0)

    def fill(self, levels: np.ndarray, outside: int) -> Image.Image:
        """An image whose pixels have their token's value, [rows, columns] or [rows, columns, 3] in uint8."""
        pixels = np.full((self.height, self.width, *levels.shape[2:]), outside, dtype=np.uint8)
        area = levels.repeat(np.diff(self.ys), axis=0).repeat(np.diff(self.xs), axis=1)
        pixels[self.ys[0] : self.ys[-1], self.xs[0] : self.xs[-1]] = area
        return Image.fromarray(pixels)

    def inside(self) -> tuple[int, int, int, int]:
        return int(self.xs[0]), int(self.ys[0]), int(self.xs[-1]), int(self.ys[-1])


def _faded(picture: Image.Image) -> Image.Image:
    """The picture as a fully dimmed patch shows it: grey, and close to DARK."""
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, Image.new("RGB", picture.size, DARK), 0.82)


def _heated(picture: Image.Image, view: View, frame: int, cells: Cells) -> Image.Image:
    grey = picture.convert("L").convert("RGB")
    colours = heat_colours(view.scores)[frame]
    unscored = np.isnan(view.scores[frame])
    strength = cells.mask(np.where(unscored, 0.0, HEAT))
    base = Image.composite(_faded(picture), grey, cells.mask(np.where(unscored, 1.0, 0.0)))
    panel = Image.composite(cells.fill(colours, 0), base, strength)
    _outline(panel, cells, view.kept[frame], (255, 255, 255))
    return panel


def _outline(panel: Image.Image, cells: Cells, member: np.ndarray, colour: tuple[int, int, int]) -> None:
    """A line along the inner edge of all places [rows, columns] that are `member`."""
    draw = ImageDraw.Draw(panel)
    rows, columns = member.shape
    for row, column in np.argwhere(member).tolist():
        box = cells.xs[column], cells.ys[row], cells.xs[column + 1] - 1, cells.ys[row + 1] - 1
        if box[0] > box[2] or box[1] > box[3]:
            continue  # outside the picture
        for down, right in SIDES:
            r, c = row + down, column + right
            if 0 <= r < rows and 0 <= c < columns and member[r, c]:
                continue
            draw.rectangle(_side(box, down, right, cells.line - 1), fill=colour)


def _mark(panel: Image.Image, cells: Cells, member: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Fill a corner of the tokens that stand for a group: in a dark picture clear and dimmed look alike."""
    for row, column in np.argwhere(member).tolist():
        x, y = int(cells.xs[column]), int(cells.ys[row])
        right = int(min(x + 3 * cells.line, cells.xs[column + 1])) - 1
        bottom = int(min(y + 3 * cells.line, cells.ys[row + 1])) - 1
        if right >= x and bottom >= y:
            ImageDraw.Draw(panel).rectangle((x, y, right, bottom), fill=colour)


def _side(box: tuple, down: int, right: int, more: int) -> tuple[int, int, int, int]:
    """The strip along one side of a box (left, top, right, bottom), `more` pixels wider than one."""
    x0, y0, x1, y1 = (int(x) for x in box)
    if right > 0:
        return max(x0, x1 - more), y0, x1, y1
    if right < 0:
        return x0, y0, min(x1, x0 + more), y1
    if down > 0:
        return x0, max(y0, y1 - more), x1, y1
    return x0, y0, x1, min(y1, y0 + more)


def _hatched(panel: Image.Image, cells: Cells) -> Image.Image:
    """The part that no token covers, faded under diagonal lines."""
    inside = cells.inside()
    if inside == (0, 0, *panel.size):
        return panel
    outside = Image.new("L", panel.size, 255)
    outside.paste(0, inside)
    faded = Image.blend(panel, Image.new("RGB", panel.size, (255, 255, 255)), OUTSIDE_DIM)
    lines = Image.new("L", panel.size, 0)
    draw = ImageDraw.Draw(lines)
    step = max(6, min(panel.size) // 24)
    for x in range(-panel.height, panel.width, step):
        draw.line((x, panel.height, x + panel.height, 0), fill=255, width=max(1, step // 8))
    faded.paste(HATCH, mask=ImageChops.multiply(lines, outside))
    return Image.composite(faded, panel, outside)
