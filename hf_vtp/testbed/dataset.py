"""The scenes as a `datasets` dataset: pictures, captions, what is in them, questions and answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, Features, Image, Value, load_from_disk

from ..measure.cli import UsageError
from .backgrounds import BACKGROUNDS
from .questions import caption, questions
from .scenes import IMAGE_SIZE, make_scene

TEXT = Value("string")
BOX = [Value("int32")]  # left, top, right, bottom in pixels
FEATURES = Features(
    {
        "image": Image(),
        "caption": TEXT,
        "background": TEXT,
        "things": [{"color": TEXT, "shape": TEXT, "size": TEXT, "box": BOX}],
        "writing": TEXT,  # empty where nothing is printed
        "questions": [{"type": TEXT, "question": TEXT, "answer": TEXT}],
    }
)


def rows(num: int, seed: int, split: str, varied: bool = False) -> Iterator[dict]:
    """The first `num` scenes as rows of FEATURES."""
    for i in range(num):
        scene = make_scene(seed, i, split, None if varied else (IMAGE_SIZE, IMAGE_SIZE))
        yield {
            "image": scene.image,
            "caption": caption(scene),
            "background": scene.background,
            "things": [{**vars(thing), "box": list(thing.box)} for thing in scene.things],
            "writing": scene.writing.spoken if scene.writing else "",
            "questions": [vars(question) for question in questions(scene)],
        }


def save_dataset(
    out: str | Path, num: int, seed: int = 0, split: str = "train", varied: bool = False
) -> Dataset:
    """Write the first `num` scenes to the folder `out`, to be read again with `datasets.load_from_disk`.

    Nothing is left there if it fails. Raises UsageError if the folder holds something already.
    """
    if split not in BACKGROUNDS:
        raise UsageError(f"unknown split {split!r}; choose from {', '.join(BACKGROUNDS)}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder; choose another one")
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} does not exist; make it or write elsewhere")
    options = {"num": num, "seed": seed, "split": split, "varied": varied}
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as unfinished:
        made = Dataset.from_generator(rows, FEATURES, cache_dir=f"{unfinished}/cache", gen_kwargs=options)
        made.save_to_disk(f"{unfinished}/made")
        Path(unfinished, "made").replace(out)
    return load_from_disk(out)
