"""What a model of the leaderboard and a run of it look like to the loop that measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...config import VTPConfig
from ..bench.cli import UsageError, first_sentence
from .entries import Entry, Point
from .outside import Forward
from .scores import digest

EDGE = 1 << 20  # bytes of either end of a file of weights that identify it
REFUSALS = (TypeError, ValueError, NotImplementedError, UsageError)


class NotRun(Exception):
    """Why a row has no result on a model, in one sentence."""


@dataclass
class Run:
    """One way to run a model, of which a row at a point has one, or one for each seed.

    Attributes:
        config: what to apply; None where `forward` or `smaller` says what is run.
        forward: of a row from outside.
        smaller: of the row of smaller images, the share of tokens that they have.
        share: of the FLOPs of the unpruned model.
        how: what was solved or chosen, in words.
    """

    config: VTPConfig | None = None
    forward: Forward | None = None
    smaller: float | None = None
    share: float | None = None
    how: str = ""


@dataclass
class Scores:
    """Item scores of one run by metric, or its answers; and the tokens of each image, kept and all."""

    items: dict[str, list[float]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    total: list[int] = field(default_factory=list)

    def add(self, items: dict[str, Sequence[float]], kept: Sequence[int], total: Sequence[int]) -> None:
        for name, values in items.items():
            self.items.setdefault(name, []).extend(float(value) for value in values)
        self.kept += kept
        self.total += total


class Subject(Protocol):
    """A loaded model with its items. `batches` may be read again and again, always in the same order."""

    entry: Entry
    num_items: int
    items_digest: str

    def runs(self, row: str, point: Point, seeds: int) -> list[Run]:
        """What to run for a row at a point; raises NotRun."""

    def batches(self) -> Iterator[object]:
        """Batches of items, decoded."""

    def score(self, run: Run | None, batch: object, scores: Scores) -> None:
        """Run one batch and add what comes out; None is the unpruned model. Raises NotRun."""

    def finish(self, scores: Scores) -> None:
        """Work out the scores that need the answers to all items."""


def refused(error: Exception) -> NotRun:
    return NotRun(first_sentence(error))


def weights_digest(model: str) -> str:
    """Changes with the config and the weights of a folder: names, sizes and both ends of its files.

    Of a name on the Hub it is the name.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return digest(model)
    found = []
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        if path.is_file():
            with path.open("rb") as file:
                start, size = file.read(EDGE), path.stat().st_size
                file.seek(max(0, size - EDGE))
                found.append((path.name, size, digest(start.hex()), digest(file.read(EDGE).hex())))
    return digest(found)
