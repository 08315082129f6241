"""The images of whatever `datasets` can load."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from huggingface_hub import constants
from PIL import Image

from ..loading import reachable
from .cli import UsageError, first_sentence

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}  # of a file, by its ending
ON_DISK = ("dataset_info.json", "dataset_dict.json")  # what save_to_disk leaves
SPLITS = ("test", "validation", "val", "train")  # the first of them that there is, unless one is named


def entries(source: str, path: Path) -> Iterator[tuple[str, partial]]:
    """(name, function that opens the image) for every row of a dataset.

    Read as a stream, so that nothing is loaded that is not asked for. Raises UsageError where `datasets` is
    not installed, cannot load it, or finds no image in it.
    """
    loaded = undecoded(load_split(source, path))
    column, _ = image_column(loaded, source)
    return ((f"row {i}", partial(open_image, row[column])) for i, row in enumerate(loaded))


def image_column(loaded, source: str) -> tuple[str, dict]:
    """The column of `undecoded` rows that holds an image, and the first row; raises UsageError without."""
    try:
        first = next(iter(loaded), None)
    except Exception as error:  # found, but not readable
        raise UsageError(f"the dataset {source} cannot be read: {first_sentence(error)}") from None
    column = first and next((name for name, value in first.items() if is_image(value)), None)
    if column is None:
        columns = ", ".join(first or ()) or "none"
        raise UsageError(
            f"there is no image in {source} (columns: {columns}); give a folder or dataset of images"
        )
    return column, first


def load_split(source: str, path: Path, split: str = ""):
    """One split of the dataset at `path`, or of that name (or `name:split`) on the Hub, as a stream.

    Raises UsageError where `datasets` is not installed or cannot load it.
    """
    try:
        import datasets
    except ImportError:
        raise UsageError(f"reading the dataset {source} needs `datasets`; run pip install datasets") from None
    name = source
    if not path.exists() and not split:
        name, _, split = source.partition(":")
    try:
        if any((path / file).is_file() for file in ON_DISK):
            loaded = datasets.load_from_disk(str(path))
        else:
            where = _where(source, path, name)
            # older releases of `datasets` ask whether they may run a folder's script; newer ones cannot
            if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:
                where["trust_remote_code"] = False
            loaded = datasets.load_dataset(**where, streaming=True)
    except UsageError:
        raise
    except Exception as error:  # of every library that `datasets` reads files with
        raise UsageError(f"there is no image in {source}: {first_sentence(error)}") from None
    if not isinstance(loaded, dict):
        return loaded
    if split and split not in loaded:
        raise UsageError(f"{name} has no split {split!r}; choose from {', '.join(loaded)}")
    return loaded[split or next((s for s in SPLITS if s in loaded), next(iter(loaded)))]


def _where(source: str, path: Path, name: str) -> dict:
    """Arguments of load_dataset."""
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix not in BUILDERS:
            raise UsageError(f"{source} is no image, no .zip and no dataset ending in {', '.join(BUILDERS)}")
        return {"path": BUILDERS[suffix], "data_files": str(path)}
    if path.is_dir():
        return {"path": str(path)}
    if reachable() or constants.HF_HUB_OFFLINE:  # set by a user who has the dataset in the cache
        return {"path": name}
    raise UsageError(f"there is no folder {source}, and the Hub cannot be reached for such a dataset")


def undecoded(loaded):
    """The same rows with images as bytes, so that a broken one can be passed over."""
    import datasets

    for name, feature in (loaded.features or {}).items():
        if isinstance(feature, datasets.Image):
            loaded = loaded.cast_column(name, datasets.Image(decode=False))
    return loaded


def is_image(value: object) -> bool:
    if isinstance(value, dict):
        return set(value) == {"bytes", "path"}
    return isinstance(value, Image.Image)


def open_image(value: dict | Image.Image) -> Image.Image:
    """The image of an `undecoded` row."""
    if isinstance(value, Image.Image):
        return value
    if value["bytes"] is not None:
        return Image.open(io.BytesIO(value["bytes"]))
    import datasets

    return datasets.Image().decode_example(value)  # a path, perhaps inside an archive or on the Hub
