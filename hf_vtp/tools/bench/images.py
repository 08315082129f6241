"""Images to measure on: a folder, a dataset, or the photographs inside scikit-image."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from .cli import UsageError, first_sentence, require
from .decode import BROKEN, MOST_BYTES, upright_rgb

PHOTOGRAPHS = (  # of what the scikit-image wheel ships; masks, drawings and one of each stereo pair left out
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png"),
    *("retina.jpg", "rocket.jpg"),
)
ENCRYPTED = 1  # in a member's flags
Opener = Callable[[], Image.Image]


@dataclass
class Images:
    """Where images come from, and what became of them once `decoded` ran.

    Attributes:
        source: what a report calls them.
        entries: (name, function that opens the image), in a fixed order; a list where their number is known.
        skipped: names of broken images.
    """

    source: str
    entries: Iterable[tuple[str, Opener]]
    skipped: list[str] = field(default_factory=list)

    def decoded(self, limit: int) -> Iterator[Image.Image]:
        """At most `limit` upright RGB images, one by one; a broken one is named on stderr and passed over.

        From a longer list they are evenly spread, as folders go by class; from a stream they are the first.
        """
        if isinstance(self.entries, list) and len(self.entries) > limit:
            self.entries = [self.entries[i * len(self.entries) // limit] for i in range(limit)]
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

    A folder is searched with its subfolders, for images or else for .zip archives of them. Any other folder,
    a .parquet, .arrow or .tar file and a name on the Hub go to `datasets`; `name:split` picks a split. Raises
    UsageError where there is none.
    """
    if source is None:
        require("scikit-image")
        folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
        return _images("scikit-image's photographs", _files([folder / name for name in PHOTOGRAPHS], folder))
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        if not files:
            raise UsageError(f"there is no image in the folder {source}; give one of images, or a dataset")
    elif path.is_file():
        files, path = [path], path.parent
    elif path.is_absolute() or source.startswith((".", "~")):
        raise UsageError(f"there is no folder {source}; give a folder of images, a dataset or nothing")
    else:
        files = []
    for suffixes, entries_of in ((_suffixes(), _files), ({".zip"}, _members)):
        found = [file for file in files if file.suffix.lower() in suffixes]
        if found:
            return _images(source, entries_of(found, path))
    from .image_dataset import entries  # imports `datasets`, which measuring on a folder does not need

    return Images(source, entries(source, Path(os.path.expanduser(source))))


def _images(source: str, entries: list[tuple[str, Opener]]) -> Images:
    if not entries:
        raise UsageError(f"there is no image in {source}; give a folder of images with --images")
    return Images(source, entries)


def _suffixes() -> set[str]:
    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def _files(paths: list[Path], folder: Path) -> list[tuple[str, Opener]]:
    return [(str(p.relative_to(folder)), partial(Image.open, p)) for p in paths if p.is_file()]


def _members(paths: list[Path], folder: Path) -> list[tuple[str, Opener]]:
    entries = []
    for path in paths:
        try:
            archive = zipfile.ZipFile(path)
        except BROKEN as error:
            raise UsageError(f"{path} cannot be read: {first_sentence(error)}") from None
        for name in sorted(archive.namelist()):
            if Path(name).suffix.lower() in _suffixes() and not Path(name).name.startswith("."):
                entries.append((f"{path.relative_to(folder)}/{name}", partial(_open_member, archive, name)))
    return entries


def _open_member(archive: zipfile.ZipFile, name: str) -> Image.Image:
    """The image of a member; raises OSError for one that is encrypted, too large or packed in another way."""
    member = archive.getinfo(name)
    if member.flag_bits & ENCRYPTED:
        raise OSError("it is encrypted")
    if member.file_size > MOST_BYTES:
        raise OSError(f"it is larger than {MOST_BYTES // 2**20} MiB")
    try:
        with archive.open(member) as file:
            data = file.read(MOST_BYTES)
    except Exception as error:  # every way of packing has its own
        raise OSError(first_sentence(error)) from None
    return Image.open(io.BytesIO(data))
