"""The models of a leaderboard, read from a JSON file: what each is measured on, and at which points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from ... import bounded_json
from ..bench.cli import UsageError, reason

KINDS = {  # by kind: its metrics, the first by default, of which the first ranks
    "classifier": ("agree", "cosine", "top_1"),
    "clip": ("top_1", "agree", "cosine"),
    "vlm": ("exact_match", "agreement", "cider", "vqa_accuracy", "anls"),
}
PLACES = ("flops", "after", "tower")
WHAT = {  # by place: the points of a table in words
    "flops": "FLOPs {:g}",
    "after": "after the tower, keep {:g}",
    "tower": "in the tower, keep {:g}",
}
VARIABLE = re.compile(r"^\{(\w+)\}")


@dataclass(frozen=True)
class Point:
    """How much is pruned where: a share of the tower's FLOPs, or of the tokens after or in the tower."""

    place: str
    value: float

    @property
    def key(self) -> str:
        return f"{self.place} {self.value:g}"

    @property
    def words(self) -> str:
        return WHAT[self.place].format(self.value)


@dataclass(frozen=True)
class Entry:
    """One model of the leaderboard, with its data.

    Attributes:
        name: the folder of its results.
        kind: "classifier" (of images), "clip" (zero-shot) or "vlm" (answers to questions).
        model, data: a folder or a name on the Hub; `{NAME}` at the beginning is a folder given on the command
            line.
        points: pairs of a place and a list of shares, such as {"flops": [0.6]} or {"after": [0.5, 0.25]}.
        metrics: the first ranks the methods.
        question: asked about every image of a dataset of captions.
        prompt, instruction: as of eval-vlm; prompts: texts with {} for the class, of a clip.
        prepare: the command that makes the data or the model, said where it is missing.
    """

    name: str
    kind: str
    model: str
    data: str
    points: dict[str, list[float]]
    title: str = ""
    weights: str = ""
    metrics: list[str] = field(default_factory=list)
    num_items: int = 1000
    batch_size: int = 20
    split: str = ""
    question: str = ""
    prompt: str = ""
    prompts: list[str] = field(default_factory=list)
    instruction: str = ""
    max_new_tokens: int = 16
    prepare: str = ""

    @property
    def all_points(self) -> list[Point]:
        return [Point(place, float(value)) for place, values in self.points.items() for value in values]

    @property
    def shown(self) -> str:
        return self.title or self.name


def read_entries(file: str) -> list[Entry]:
    """The models of a JSON file, an object by name; raises UsageError, one sentence, for what is wrong."""
    try:
        found = bounded_json.read(Path(file), file)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({reason(error)}); give a JSON file of models") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not isinstance(found, dict) or not found or not all(isinstance(row, dict) for row in found.values()):
        raise UsageError(f"{file} must hold an object of models by name, each an object")
    return [_entry(name, row) for name, row in found.items()]


def _entry(name: str, row: dict) -> Entry:
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"the model {name!r} needs a name of letters, digits, dots and dashes")
    known = {f.name: f for f in fields(Entry) if f.name != "name"}
    for key in row:
        if key not in known:
            raise UsageError(
                f"the model {name} has the unknown field {key!r}; choose from {', '.join(known)}"
            )
    for key, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and key not in row:
            raise UsageError(f"the model {name} lacks {key!r}")
        kind = {"str": str, "int": int}.get(f.type, dict if key == "points" else list)
        if key in row and (not isinstance(row[key], kind) or isinstance(row[key], bool)):
            raise UsageError(f"{key} of the model {name} must be of type {kind.__name__}, not {row[key]!r}")
    if row["kind"] not in KINDS:
        raise UsageError(f"the model {name} is of the kind {row['kind']!r}; choose from {', '.join(KINDS)}")
    metrics = row.get("metrics") or list(KINDS[row["kind"]][:1])
    for metric in metrics:
        if metric not in KINDS[row["kind"]]:
            allowed = ", ".join(KINDS[row["kind"]])
            raise UsageError(f"the model {name} has the unknown metric {metric!r}; choose from {allowed}")
    entry = Entry(name=name, **{**row, "metrics": metrics})
    _check_points(entry)
    for key in ("num_items", "batch_size", "max_new_tokens"):
        if not 1 <= getattr(entry, key) <= 10**7:
            raise UsageError(f"{key} of the model {name} must lie between 1 and 10000000")
    return entry


def _check_points(entry: Entry) -> None:
    allowed = PLACES if entry.kind == "vlm" else PLACES[:1]
    for place, values in entry.points.items():
        if place not in allowed:
            raise UsageError(
                f"the model {entry.name} has points for {place!r}; a {entry.kind} takes {', '.join(allowed)}"
            )
        right = isinstance(values, list) and all(type(v) in (int, float) and 0 < v < 1 for v in values)
        if not right or not values or len(set(values)) < len(values):
            raise UsageError(f"points of the model {entry.name} must be lists of shares between 0 and 1")
    if not entry.points:
        raise UsageError(f"the model {entry.name} has no points")


def place(path: str, folders: Mapping[str, str]) -> str:
    """The path with the variable at its beginning filled in.

    Raises UsageError where no folder of that name was given.
    """
    found = VARIABLE.match(path)
    if found is None:
        return path
    if found[1] not in folders:
        raise UsageError(f"no folder {found[1]!r} was given; add --folder {found[1]}=DIR")
    return folders[found[1]] + path[found.end() :]


def missing(entry: Entry, folders: Mapping[str, str]) -> str:
    """Why a model cannot be measured here, "" where its weights and data are there or may be on the Hub."""
    try:
        paths = {key: place(getattr(entry, key), folders) for key in ("model", "data")}
    except UsageError as error:
        return str(error)
    hint = f"; make it with: {entry.prepare}" if entry.prepare else ""
    for key, path in paths.items():
        own = VARIABLE.match(getattr(entry, key)) or path.startswith((".", "/", "~"))
        local = own or len(Path(path).parts) > 2  # a name on the Hub has two at most
        if local and not Path(path).expanduser().exists():
            return f"there is no {path}{hint}"
    return ""
