"""The scenes as a `datasets` dataset: pictures, captions, what is in them, questions and answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, Value, load_from_disk

from ..bench.cli import UsageError
from .backgrounds import BACKGROUNDS
from .evaluate import asked, classified
from .questions import CLASSES, caption, questions
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


def asked_rows(num: int, seed: int, split: str, varied: bool = False) -> Iterator[dict]:
    """One question about each of the first `num` scenes, as the cards of models that answer count them."""
    for i, item in enumerate(asked(num, seed, varied, split)):
        yield {"id": i, "image": item.image, **vars(item.question)}


def classified_rows(num: int, seed: int, split: str, varied: bool = False) -> Iterator[dict]:
    """`num` scenes of one thing with its class, all of one size, as the card of the CLIP counts them."""
    for image, label in classified(num, seed, split):
        yield {"image": image, "label": label}


TASKS = {  # the rows to save, and their columns
    "scenes": (rows, FEATURES),
    "questions": (
        asked_rows,
        Features({"id": Value("int32"), "image": Image(), "type": TEXT, "question": TEXT, "answer": TEXT}),
    ),
    "classes": (classified_rows, Features({"image": Image(), "label": ClassLabel(names=list(CLASSES))})),
}


def save_dataset(
    out: str | Path,
    num: int,
    seed: int = 0,
    split: str = "train",
    varied: bool = False,
    task: str = "scenes",
) -> Dataset:
    """Write the first `num` scenes to the folder `out`, to be read again with `datasets.load_from_disk`.

    `task` is a row of TASKS. Nothing stays there if it fails. Raises UsageError if the folder holds something
    already.
    """
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}; choose from {', '.join(TASKS)}")
    if task == "classes" and varied:
        raise UsageError("pictures for classification are all of one size; leave out --varied")
    if split not in BACKGROUNDS:
        raise UsageError(f"unknown split {split!r}; choose from {', '.join(BACKGROUNDS)}")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder; choose another one")
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} does not exist; make it or write elsewhere")
    options = {"num": num, "seed": seed, "split": split, "varied": varied}
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as unfinished:
        generator, features = TASKS[task]
        cache = f"{unfinished}/cache"
        made = Dataset.from_generator(generator, features, cache_dir=cache, gen_kwargs=options)
        made.save_to_disk(f"{unfinished}/made")
        Path(unfinished, "made").replace(out)
    return load_from_disk(out)
