"""Scenes with known contents: coloured shapes and a printed word or number over a photograph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin
from random import Random

from PIL import Image, ImageDraw, ImageFont

from .backgrounds import background

COLORS = {
    "red": (220, 30, 35),
    "orange": (250, 130, 20),
    "yellow": (245, 225, 40),
    "green": (30, 165, 50),
    "cyan": (45, 215, 225),
    "blue": (40, 65, 230),
    "purple": (145, 40, 175),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = {"small": 14, "large": 22}  # pixels
WORDS = tuple("bell bird boat cat corn dog door fish frog king lamp milk nest rose sun tree".split())
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGE_SIZE = 96  # pixels, where all pictures are of one size
SIDES = (96, 112, 128, 144)  # pixels; a picture of another size has two of these
# Things stand on a grid, a little shaken: a small model learns them far sooner than at free places.
GRID, SHAKE = 8, 1  # pixels
SUPERSAMPLE, TRIES = 4, 40


@dataclass(frozen=True)
class Thing:
    """A shape in a scene; `box` is left, top, right, bottom in pixels."""

    color: str
    shape: str
    size: str
    box: tuple[int, int, int, int]

    @property
    def center(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Writing:
    """Something printed: `kind` is "word" or "number", a number's `text` its two digits."""

    kind: str
    text: str
    box: tuple[int, int, int, int]

    @property
    def spoken(self) -> str:
        """The word itself, or the number digit by digit: "four seven"."""
        return self.text if self.kind == "word" else " ".join(DIGITS[int(d)] for d in self.text)


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is in it."""

    image: Image.Image
    background: str
    things: tuple[Thing, ...]
    writing: Writing | None


def make_scene(
    seed: int,
    index: int,
    split: str = "train",
    size: tuple[int, int] | None = (IMAGE_SIZE, IMAGE_SIZE),
    num_things: int | None = None,
) -> Scene:
    """Scene `index` of an endless sequence: a function of its arguments and of nothing else.

    Args:
        split: "train" or "test"; they share no background.
        size: width and height in pixels; None draws both from SIDES.
        num_things: how many shapes, 1 to 4; None draws their number.
    """
    random = Random(f"{split}/{seed}/{index}")
    width, height = size or (random.choice(SIDES), random.choice(SIDES))
    name, image = background(random, split, width, height)
    wanted = num_things or random.choices((1, 2, 3, 4), (0.25, 0.3, 0.25, 0.2))[0]
    boxes: list[tuple[int, int, int, int]] = []
    writing = _write(random, image, boxes) if random.random() < 0.5 else None
    things = []
    for _ in range(wanted):
        sort = random.choice(tuple(SIZES))
        side = SIZES[sort]
        box = _place(random, image.size, (side, side), boxes)
        if box is None:  # never for the first: the picture is far larger
            break
        thing = Thing(random.choice(tuple(COLORS)), random.choice(SHAPES), sort, box)
        paint = tuple(min(255, max(0, level + random.randint(-20, 20))) for level in COLORS[thing.color])
        image.paste(paint, box, _mask(thing.shape, side))
        things.append(thing)
    return Scene(image, name, tuple(things), writing)


def _write(random: Random, image: Image.Image, boxes: list) -> Writing:
    kind = random.choice(("word", "number"))
    text = random.choice(WORDS) if kind == "word" else f"{random.randrange(100):02}"
    font = _font(random.choice((16, 18)))
    left, top, right, bottom = font.getbbox(text, stroke_width=1)
    box = _place(random, image.size, (int(right - left), int(bottom - top)), boxes)
    ink, edge = random.choice((("white", "black"), ("black", "white")))
    at = (box[0] - left, box[1] - top)
    ImageDraw.Draw(image).text(at, text, fill=ink, font=font, stroke_width=1, stroke_fill=edge)
    return Writing(kind, text, box)


def _place(random: Random, canvas: tuple[int, int], size: tuple[int, int], boxes: list) -> tuple | None:
    """A free box of that size, added to `boxes`; None where TRIES draws found none."""
    for _ in range(TRIES):
        x, y = (
            GRID * random.randint(0, (outer - inner - SHAKE) // GRID) + random.randint(0, SHAKE)
            for outer, inner in zip(canvas, size, strict=True)
        )
        box = (x, y, x + size[0], y + size[1])
        if all(box[0] >= b[2] or b[0] >= box[2] or box[1] >= b[3] or b[1] >= box[3] for b in boxes):
            boxes.append(box)
            return box
    return None


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


@cache
def _mask(shape: str, side: int) -> Image.Image:
    """The shape's coverage of a `side` × `side` box, drawn larger and reduced for smooth edges."""
    n = side * SUPERSAMPLE
    mask = Image.new("L", (n, n))
    draw = ImageDraw.Draw(mask)
    if shape in ("circle", "ring"):
        draw.ellipse((0, 0, n - 1, n - 1), fill=255)
        if shape == "ring":
            draw.ellipse((n * 0.27, n * 0.27, n * 0.73 - 1, n * 0.73 - 1), fill=0)
    else:
        draw.polygon([(n / 2 * (1 + x), n / 2 * (1 + y)) for x, y in POLYGONS[shape]], fill=255)
    return mask.resize((side, side), Image.Resampling.BOX)


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    """A star's corners on the unit circle, the first at the top."""
    radii = (1, inner)
    return [
        (radii[i % 2] * sin(i * pi / points), -radii[i % 2] * cos(i * pi / points)) for i in range(2 * points)
    ]


POLYGONS = {  # corners in a box from -1 to 1
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "triangle": [(0, -1), (1, 0.85), (-1, 0.85)],
    "star": _star(5, 0.42),
    "cross": [
        *((-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3)),
        *((0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3)),
    ],
}
