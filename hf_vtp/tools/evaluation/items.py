"""Images with labels or captions, as a stream from whatever `datasets` can load."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ..bench.cli import UsageError
from ..bench.decode import BROKEN, upright_rgb
from ..bench.image_dataset import image_column, load_split, open_image, undecoded
from .archive import open_archive

CAPTIONS = ("captions", "caption", "text", "sentences")  # columns of these names hold captions
EVERYTHING = 1 << 62  # more rows than any dataset has
LABELS = ("label", "labels", "class", "fine_label")


@dataclass(frozen=True)
class Item:
    """One image: its number in the stream, how to open it, its class (a name's place) and its captions."""

    index: int
    opener: Callable[[], Image.Image]
    label: int | None = None
    captions: tuple[str, ...] = ()


@dataclass
class ImageData:
    """A stream of images that can be read again; `classes` is empty without labels.

    `named` says whether the names of the classes are the dataset's own, or given for it.
    """

    source: str
    rows: object  # a dataset of `datasets` whose images are bytes
    limit: int
    image: str
    label: str | None
    captions: str | None
    classes: list[str]
    named: bool = True

    def num_batches(self, size: int) -> int | None:
        """The number of batches; None where the stream does not give its length."""
        try:
            rows = min(self.limit, len(self.rows))
        except TypeError:
            rows = self.limit
        return None if rows == EVERYTHING else -(-rows // size)

    def __iter__(self) -> Iterator[Item]:
        places = {name: i for i, name in enumerate(self.classes)}
        for i, row in enumerate(self.rows.take(self.limit)):
            label = None if self.label is None else row[self.label]
            if isinstance(label, str):
                label = places[label]
            if label is not None and not 0 <= label < len(self.classes):
                raise UsageError(f"row {i} of {self.source} has the label {label}, which is no class")
            captions = () if self.captions is None else row[self.captions]
            captions = (captions,) if isinstance(captions, str) else tuple(captions)
            yield Item(i, partial(open_image, row[self.image]), label, captions)


def open_images(
    source: str,
    split: str = "",
    limit: int = EVERYTHING,
    label: str | None = None,
    captions: str | None = None,
    classes: list[str] | None = None,
    unnamed: list[str] | None = None,
) -> ImageData:
    """The images of a folder (imagefolder, parquet, arrow, or see open_archive), a file or a name on the Hub.

    Columns are found by their kind or name unless named here; `classes` are the names of labels that are
    numbers, `unnamed` those to take where the dataset has none. Raises UsageError for what cannot be read, or
    has no such column.
    """
    path = Path(os.path.expanduser(source))
    if not path.exists() and (path.is_absolute() or source.startswith((".", "~"))):
        raise UsageError(
            f"there is no folder {source}; give a folder, a file or a dataset's name with --data"
        )
    loaded, names = open_archive(path) or (undecoded(load_split(source, path, split)), None)
    image, first = image_column(loaded, source)
    for asked in filter(None, (label, captions)):
        if asked not in first:
            raise UsageError(f"{source} has no column {asked!r}; choose from {', '.join(first)}")
    names = names or getattr((loaded.features or {}).get(label or _labelled(loaded)), "names", None)
    label = label or _labelled(loaded) or _named(first, LABELS, int | str)
    captions = captions or _named(first, CAPTIONS, str | list)
    data = ImageData(source, loaded, limit, image, label, captions, list(classes or names or []))
    if label is not None and not data.classes:
        if unnamed and not isinstance(first[label], str):
            data.classes, data.named = list(unnamed), False
        else:
            data.classes = _classes(data, first)
    return data


def decoded(item: Item) -> Image.Image | None:
    """The upright RGB image; None if it is broken."""
    try:
        return upright_rgb(item.opener())
    except BROKEN:
        return None


def content(image: Image.Image | None) -> str | None:
    """A hash of a decoded image's pixels, whatever its file is called; None for a broken one."""
    if image is None:
        return None
    return hashlib.sha256(f"{image.width} x {image.height} ".encode() + image.tobytes()).hexdigest()


def _labelled(loaded) -> str | None:
    """The column that `datasets` itself knows to hold class labels."""
    found = (name for name, feature in (loaded.features or {}).items() if hasattr(feature, "int2str"))
    return next(found, None)


def _named(first: dict, names: tuple[str, ...], kinds: type) -> str | None:
    return next((name for name in names if isinstance(first.get(name), kinds)), None)


def _classes(data: ImageData, first: dict) -> list[str]:
    """The names in the label column, in alphabetical order."""
    if not isinstance(first[data.label], str):
        raise UsageError(
            f"the labels of {data.source} are numbers without names; give a file of names as --classes"
        )
    return sorted({row[data.label] for row in data.rows.select_columns([data.label]).take(data.limit)})
