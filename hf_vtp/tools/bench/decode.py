"""One image, whatever its file holds, as upright 8-bit RGB."""

from __future__ import annotations

import struct
import zipfile
import zlib

import numpy as np
from PIL import Image, ImageOps

BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error),
    *(zipfile.BadZipFile, Image.DecompressionBombError),
    # what Pillow's readers stumble over in a file that somebody made up
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(SystemError, TypeError),
)
MOST_BYTES = 64 * 2**20  # of an image's file
FULL_SCALE = {"I": 65535.0, "F": 1.0}  # white, by the first letter of modes wider than 8 bits


def upright_rgb(image: Image.Image) -> Image.Image:
    """EXIF rotation applied; CMYK, greyscale, 16-bit, float and palette images become RGB.

    Raises one of BROKEN for a truncated or unreadable file.
    """
    refuse_empty(image)
    image.load()
    return as_rgb(ImageOps.exif_transpose(image))


def as_rgb(image: Image.Image) -> Image.Image:
    """The raster as it is stored, in RGB; raises ValueError for one without pixels."""
    refuse_empty(image)
    white = FULL_SCALE.get(image.mode[0])
    if white is not None:  # Pillow's own conversion clips these to 255, which is white throughout
        values = np.nan_to_num(np.asarray(image, dtype=np.float32))
        values = values * (255 / max(white, float(values.max(initial=0))))
        image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def refuse_empty(image: Image.Image) -> None:
    """Raise ValueError for a picture without pixels."""
    if 0 in image.size:
        raise ValueError(f"the picture has {image.width} x {image.height} pixels, and so nothing to see")
