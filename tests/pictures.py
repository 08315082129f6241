"""Files that people upload: what they say they are, and what they are not."""

import struct
import zlib

import numpy as np
from PIL import Image


def header_only(path, width, height):
    """A PNG whose header promises so many pixels, and which holds a few bytes of them."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def text(folder):
    path = folder / "text.png"
    path.write_text("no image at all\n")
    return path


def cut_short(folder):
    path = folder / "cut.jpg"
    Image.effect_noise((200, 150), 90).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def postscript(folder):
    path = folder / "drawing.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    return path


def huge(folder):
    return header_only(folder / "huge.png", 20_000, 20_000)


def large(folder):
    return header_only(folder / "large.png", 9_000, 9_000)


def thread(folder):
    return header_only(folder / "thread.png", 5_000_000, 2)


REFUSED = {  # by the words that the sentence must hold
    "is not an image": text,
    "cannot be read": cut_short,
    "not an image; give a file of type": postscript,
    "more than 50 million pixels; give": huge,
    "more than 50 million pixels": large,
    "at most 200 times the shorter": thread,
}


def gif(folder):
    """Three frames, the first of them red."""
    frames = [Image.new("RGB", (120, 80), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    return folder / "moving.gif"


def cmyk(folder):
    Image.new("CMYK", (120, 80), (0, 255, 255, 0)).save(folder / "printed.jpg")
    return folder / "printed.jpg"


def sixteen_bits(folder):
    """Black on the left, white on the right."""
    levels = np.zeros((80, 120), dtype=np.uint16)
    levels[:, 60:] = 65535
    Image.fromarray(levels).save(folder / "deep.png")
    return folder / "deep.png"


def turned(folder):
    """Stored lying on its side; red on the left once it stands."""
    image = Image.new("RGB", (80, 120), "red")
    image.paste("blue", (40, 0, 80, 120))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "phone.png", exif=exif)
    return folder / "phone.png"


TAKEN = {  # file: its upright size, and the colour near the left edge
    gif: ((120, 80), (255, 0, 0)),
    cmyk: ((120, 80), (255, 0, 0)),
    sixteen_bits: ((120, 80), (0, 0, 0)),
    turned: ((80, 120), (255, 0, 0)),
}
