"""Questions about images: a JSONL file with its images beside it, or any dataset that `datasets` loads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from ...bounded_json import shortened
from ..bench.cli import UsageError, reason
from ..bench.image_dataset import image_column, load_split, open_image, undecoded
from .items import EVERYTHING

IDS = ("id", "question_id", "questionId", "qid")
ANSWERS = ("answers", "answer", "multiple_choice_answer", "label", "captions", "caption")
WHERE = (
    "give a .jsonl file whose lines have image, question and answers, a dataset with such columns, or one of "
    "captions with --question"
)


@dataclass(frozen=True)
class Question:
    """One question: its number, its id, how to open its image, its text and the right answers."""

    index: int
    id: str
    opener: Callable[[], Image.Image]
    text: str
    answers: tuple[str, ...]


def read_questions(
    source: str, split: str = "", limit: int = EVERYTHING, asked: str | None = None
) -> list[Question]:
    """The first `limit` questions; images stay closed. Raises UsageError for any other file or dataset.

    Fields or columns are `image`, `question`, `answers` (a text, a list of them, or VQA's list of dicts) and
    perhaps `id`, by default the number of the line. Captions have no question: `asked` is that about every
    image.
    """
    path = Path(os.path.expanduser(source))
    rows = _lines(path) if path.suffix.lower() == ".jsonl" else _rows(source, path, split)
    found, seen = [], set()
    for index, (row, opener) in enumerate(rows):
        if index == limit:
            break
        question = _question(source, index, row, opener, asked)
        if question.id in seen:
            raise UsageError(f"{source} has two questions with the id {question.id!r}")
        seen.add(question.id)
        found.append(question)
    if not found:
        raise UsageError(f"there is no question in {source}; {WHERE}")
    return found


def _question(source: str, index: int, row: dict, opener: Callable, asked: str | None) -> Question:
    name = next((row[key] for key in IDS if row.get(key) is not None), index)
    answers = next((row[key] for key in ANSWERS if row.get(key) is not None), None)
    answers = answers if isinstance(answers, list | tuple) else [answers]
    texts = tuple(a.get("answer") if isinstance(a, dict) else a for a in answers)
    text = row.get("question", asked)
    if asked is not None and text != asked:
        raise UsageError(f"{source} has questions of its own; leave out --question")
    if not isinstance(text, str) or not texts or not all(isinstance(a, str) for a in texts):
        raise UsageError(f"line {index + 1} of {source} lacks a question or answers in words; {WHERE}")
    try:
        "".join((str(name), text, *texts)).encode()
    except UnicodeEncodeError:  # half of a character, as "\\ud800" is
        raise UsageError(f"line {index + 1} of {source} has a text that is not valid Unicode") from None
    return Question(index, str(name), opener, text, texts)


def _lines(path: Path) -> Iterator[tuple[dict, Callable]]:
    """(fields, opener of the image) of every line; images must lie in the file's folder or below it."""
    folder = path.parent.resolve()
    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without the mark that Windows writes
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({reason(error)}); {WHERE}") from None
    # not splitlines: JSON may hold U+2028 and other ends of lines as they are
    for number, line in enumerate(filter(str.strip, text.split("\n")), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("image"), str):
            raise UsageError(f"line {number} of {path} is no JSON object with an image; {WHERE}")
        image = _beside(folder, row["image"])
        if image is None:
            name = shortened(repr(row["image"]))
            raise UsageError(f"line {number} of {path} names {name}, which is no file beside it")
        yield row, partial(Image.open, image)


def _beside(folder: Path, name: str) -> Path | None:
    """The file of that name in the folder or below it; None where there is none."""
    try:
        image = (folder / name).resolve()
        return image if image.is_relative_to(folder) and image.is_file() else None
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return None


def _rows(source: str, path: Path, split: str) -> Iterator[tuple[dict, Callable]]:
    if not path.exists() and (path.is_absolute() or source.startswith((".", "~"))):
        raise UsageError(f"there is no {source}; {WHERE}")
    loaded = undecoded(load_split(source, path, split))
    column, _ = image_column(loaded, source)
    for row in loaded:
        yield row, partial(open_image, row[column])
