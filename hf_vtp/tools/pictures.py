"""Reading a picture from a user's file: its size is bounded before it is decoded."""

from __future__ import annotations

import os
import stat
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from .bench.cli import UsageError, first_sentence
from .bench.decode import BROKEN, MOST_BYTES, upright_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 50_000_000
MOST_STRETCH = 200  # longer by shorter side: some models enlarge the shorter one, Qwen refuses more


def read_picture(path: str | os.PathLike) -> Image.Image:
    """The first frame of an image file, upright and in 8-bit RGB.

    Raises UsageError for a file that is no image, is broken, or exceeds MOST_BYTES, MOST_PIXELS or
    MOST_STRETCH; pixels are counted by the file's header, before memory is allocated.
    """
    name = Path(path).name
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
            raise UsageError(f"{name or path} is no file; give an image")
        if status.st_size > MOST_BYTES:
            raise UsageError(f"{name} is larger than {MOST_BYTES // 2**20} MiB; give a smaller file")
        with warnings.catch_warnings():  # Pillow's own bound is laxer than ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                if max(image.size) > MOST_STRETCH * min(image.size):
                    raise UsageError(
                        f"{name} has {image.width} x {image.height} pixels; give a picture whose longer "
                        f"side is at most {MOST_STRETCH} times the shorter"
                    )
                return upright_rgb(image)
    except Image.DecompressionBombError:
        most = f"{MOST_PIXELS // 10**6} million pixels"
        raise UsageError(f"{name} has more than {most}; give a smaller picture") from None
    except UnidentifiedImageError:
        raise UsageError(f"{name} is not an image; give a file of type {', '.join(FORMATS)}") from None
    except BROKEN as error:
        reason = getattr(error, "strerror", None) or first_sentence(error)
        raise UsageError(f"{name} cannot be read ({reason}); give another image") from None
