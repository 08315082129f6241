"""Images to measure on: a folder, a dataset, or the photographs inside scikit-image."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from .cli import UsageError, first_sentence, require
from .decode import BROKEN, upright_rgb

PHOTOGRAPHS = (  # of what the scikit-image wheel ships; masks, drawings and one of each stereo pair left out
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png"),
    *("retina.jpg", "rocket.jpg"),
)
Opener = Callable[[], Image.Image]


@dataclass
class Images:
    """Where images come from, and what became of them once `decoded` ran.

    Attributes:
        source: what a report calls them.
        entries: (name, function that opens the image), in a fixed order.
        skipped: names of broken images.
    """

    source: str
    entries: Iterator[tuple[str, Opener]]
    skipped: list[str] = field(default_factory=list)

    def decoded(self, limit: int) -> Iterator[Image.Image]:
        """At most `limit` upright RGB images, one by one; a broken one is named on stderr and passed over."""
        return islice(self._decode(), limit)

    def _decode(self) -> Iterator[Image.Image]:
        for name, opener in self.entries:
            try:
                image = upright_rgb(opener())
            except BROKEN as error:
                self.skipped.append(name)
                print(f"skipped {name}: {first_sentence(error)}", file=sys.stderr)
            else:
                yield image


def find_images(source: str | None) -> Images:
    """The images of a folder, a file or a dataset; None for the photographs inside scikit-image.

    A folder is searched with its subfolders. A folder without images, a file (.parquet, .arrow, .zip, .tar)
    and a name on the Hub go to `datasets`; `name:split` picks a split. Raises UsageError where there is none.
    """
    if source is None:
        require("scikit-image")
        folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
        return _files("photographs of scikit-image", [folder / name for name in PHOTOGRAPHS], folder)
    path = Path(source).expanduser()
    suffixes = {s for s, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    if path.is_dir():
        found = sorted(
            p for p in path.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith(".")
        )
        if found:
            return _files(source, found, path)
        if not any(p.is_file() for p in path.rglob("*")):
            raise UsageError(
                f"there is no image in the folder {source}; give one that holds images or a dataset"
            )
    elif path.suffix.lower() in suffixes and path.is_file():
        return _files(source, [path], path.parent)
    elif not path.exists() and (path.is_absolute() or source.startswith((".", "~"))):
        raise UsageError(f"there is no folder {source}; give a folder of images, a dataset or nothing")
    from .image_dataset import entries  # imports `datasets`, which measuring on a folder does not need

    return Images(source, entries(source, path))


def _files(source: str, paths: list[Path], folder: Path) -> Images:
    there = [p for p in paths if p.is_file()]
    if not there:
        raise UsageError(f"there is no image in {source}; give a folder of images with --images")
    return Images(source, ((str(p.relative_to(folder)), partial(Image.open, p)) for p in there))
