"""Cluttered backgrounds: pieces of photographs inside the scikit-image wheel, some held out for testing."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from ..bench.cli import require

# Only pictures that scikit-image says are CC0, in the public domain or without known restrictions.
BACKGROUNDS = {
    "train": (
        "astronaut.png",  # NASA, public domain
        "brick.png",  # CC0Textures, CC0
        "camera.png",  # Lav Varshney, CC0
        "clock_motion.png",  # Stefan van der Walt, public domain
        "coffee.png",  # Rachel Michetti, CC0
        "coins.png",  # Brooklyn Museum, no known restrictions
        "grass.png",  # CC0Textures, CC0
        "hubble_deep_field.jpg",  # NASA, public domain
        "ihc.png",  # Center for Microscopy and Molecular Imaging, no known restrictions
    ),
    "test": (
        "chelsea.png",  # Stefan van der Walt, CC0
        "gravel.png",  # CC0Textures, CC0
        "retina.jpg",  # Mikael Häggström, CC0
        "rocket.jpg",  # SpaceX, public domain
    ),
}
LONGEST = 640  # pixels; larger photographs are reduced once, when they are first read


@cache
def photograph(name: str) -> Image.Image:
    """One of the photographs, RGB, its longer side at most LONGEST."""
    require("scikit-image")
    image = Image.open(Path(importlib.util.find_spec("skimage").origin).parent / "data" / name).convert("RGB")
    image.thumbnail((LONGEST, LONGEST))
    return image


def background(random: Random, split: str, width: int, height: int) -> tuple[str, Image.Image]:
    """A randomly placed, scaled, mirrored and dimmed piece of one photograph, and that photograph's name."""
    name = random.choice(BACKGROUNDS[split])
    photo = photograph(name)
    # pixels of the photograph in one of the picture
    scale = random.uniform(1, min(2.5, photo.width / width, photo.height / height))
    w, h = width * scale, height * scale
    x, y = random.uniform(0, photo.width - w), random.uniform(0, photo.height - h)
    piece = photo.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))
    if random.random() < 0.5:
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    light = random.uniform(0.5, 1)
    return name, piece.point([round(light * level) for level in range(256)] * 3)
