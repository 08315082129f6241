"""Predictions on disk, each as soon as there is one: a run that was killed goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..files import replacing
from ..measure.cli import UsageError, first_sentence

FORMAT = "hf_vtp_predictions"
Key = tuple[str, str]  # case, question


class Ledger:
    """A JSONL file: the first line says which run it belongs to, each other what a case answered once.

    Every process but the first writes to a file of its own beside it, which `merge` takes in.
    """

    def __init__(self, path: Path, run: dict, index: int = 0):
        self.path, self.run = path, {FORMAT: 1, **run}
        self.own = path if index == 0 else Path(f"{path}.part{index}")
        self.file = None

    def merge(self, order: Iterable[Key] = ()) -> dict[Key, dict]:
        """Gather all parts into the one file, those of `order` first; what a kill cut short is dropped.

        For the first process alone. Raises UsageError for a file that is something else, or of another run.
        """
        self.close()
        parts = sorted(self.path.parent.glob(f"{self.path.name}.part*"))
        found: dict[Key, dict] = {}
        for file in [self.path, *parts]:
            for row in _rows(file, self.run if file == self.path else None):
                found.setdefault((row["case"], row["id"]), row)
        found = {**{key: found[key] for key in order if key in found}, **found}
        with replacing(self.path) as path:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in (self.run, *found.values())]
            path.write_text("".join(lines), encoding="utf-8")
        for part in parts:
            part.unlink()
        return found

    def read(self) -> dict[Key, dict]:
        """What the merged file holds."""
        return {(row["case"], row["id"]): row for row in _rows(self.path, self.run)}

    def add(self, rows: Iterable[dict]) -> None:
        """Append lines, and have them on disk before anything else is asked."""
        if self.file is None:
            self.file = self.own.open("a", encoding="utf-8")
        self.file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def _rows(file: Path, run: dict | None) -> list[dict]:
    """The whole lines of a file; with `run`, the first one must be it."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if file.exists() else []
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {first_sentence(error)}") from None
    if run is not None and file.exists() and file.stat().st_size:
        head = _object(lines.pop(0)) if lines else {}
        if FORMAT not in head:
            raise UsageError(f"{file} is no file of predictions; give another name with --predictions")
        other = [name for name in {**run, **head} if run.get(name) != head.get(name)]
        if other:
            told = f"{other[0]} {head.get(other[0])!r}, not {run.get(other[0])!r}"
            raise UsageError(f"{file} belongs to a run with {told}; give another name with --predictions")
    return [row for row in map(_object, lines) if isinstance(row.get("case"), str) and "prediction" in row]


def _object(line: str) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
