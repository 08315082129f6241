"""Predictions on disk, each as soon as there is one: a run that was killed resumes where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from ...bounded_json import shortened
from ...files import destination, replacing
from ..bench.cli import UsageError, reason

FORMAT = "hf_vtp_predictions"
TEXTS, COUNTS = ("case", "id", "prediction"), ("kept_tokens", "total_tokens")  # of a line
MOST_TOKENS = 2**31
Key = tuple[str, str]  # case, question


class Predictions:
    """A JSONL file: the first line says which run it belongs to, every other line is one answer of a case.

    Every process but the first writes to a file of its own beside it, which `merge` takes in. The first one
    holds a lock on the file until `close`, or until the process ends, however that happens.
    """

    def __init__(self, path: Path, run: dict, index: int = 0):
        self.path, self.run = destination(path), {FORMAT: 1, **run}
        self.own = self.path if index == 0 else Path(f"{self.path}.part{index}")
        self.file: BinaryIO | None = None
        self.lock: BinaryIO | None = None

    def merge(self, order: Iterable[Key] = ()) -> dict[Key, dict]:
        """Gather all parts into the one file, those of `order` first, without a line that a kill cut short.

        For the first process alone. Raises UsageError for a file that another evaluation has open, that is
        something else, or that is of another run.
        """
        self.end()
        created = not self.path.exists()
        try:
            self.lock = self.lock or locked(self.path)
            return self._merge(order)
        except (UsageError, OSError) as error:
            if created and self.lock:
                self.path.unlink(missing_ok=True)
            self.close()
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{self.path} cannot be written ({reason(error)})") from None

    def _merge(self, order: Iterable[Key]) -> dict[Key, dict]:
        part = re.compile(re.escape(self.path.name) + r"\.part\d+")
        parts = sorted(p for p in self.path.parent.iterdir() if part.fullmatch(p.name) and p.is_file())
        found: dict[Key, dict] = {}
        for file in [self.path, *parts]:
            for row in _rows(file, self.run if file == self.path else None):
                found.setdefault((row["case"], row["id"]), row)
        found = {**{key: found[key] for key in order if key in found}, **found}
        with replacing(self.path) as path:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in (self.run, *found.values())]
            path.write_text("".join(lines), encoding="utf-8")
            lock = locked(path)  # before it takes the old one's place, so that none comes between
        self.lock.close()
        self.lock = lock
        for part in parts:
            part.unlink()
        return found

    def read(self) -> dict[Key, dict]:
        """The lines of the merged file, by case and question."""
        return {(row["case"], row["id"]): row for row in _rows(self.path, self.run)}

    def add(self, rows: Iterable[dict]) -> None:
        """Append lines, and have them on disk before the next question; raises UsageError for a full disk."""
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        try:
            if self.file is None:
                self.file = destination(self.own).open("ab", buffering=0)
            while data:
                data = data[self.file.write(data) :]
            os.fsync(self.file.fileno())
        except OSError as error:
            raise UsageError(f"{self.own} cannot be written ({reason(error)})") from None

    def end(self) -> None:
        """Add no more lines; the file stays locked."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def close(self) -> None:
        """Unlock the file for other evaluations."""
        self.end()
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def locked(path: Path) -> BinaryIO:
    """The file, open and locked until it is closed; raises UsageError where another process has locked it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else another one took its place
            return file
    except BlockingIOError:
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    raise UsageError(
        f"another evaluation is writing {path}; wait for its end, or give another name with --predictions"
    )


def _rows(file: Path, run: dict | None) -> list[dict]:
    """The complete lines of a file; with `run`, the first must be it. Raises UsageError for other files."""
    try:
        lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {reason(error)}") from None
    first = 1
    if run is not None and file.exists() and file.stat().st_size:
        head, first = _object(lines.pop(0).removeprefix(b"\xef\xbb\xbf")) if lines else {}, 2
        if FORMAT not in head:
            raise UsageError(f"{file} is no file of predictions; give another name with --predictions")
        other = [name for name in {**run, **head} if run.get(name) != head.get(name)]
        if other:
            found = f"{other[0]} {shortened(repr(head.get(other[0])))}, not {run.get(other[0])!r}"
            raise UsageError(f"{file} belongs to a run with {found}; give another name with --predictions")
    rows = [_object(line) for line in lines]
    for number, row in enumerate(rows, first):
        wrong = [name for name in TEXTS if not isinstance(row.get(name), str)]
        wrong += [name for name in COUNTS if not _counts(row.get(name, 0))]
        if wrong:
            raise UsageError(
                f"line {number} of {file} is no prediction, by its {wrong[0]}; take the line out, or give "
                "another name with --predictions"
            )
    return rows


def _counts(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST_TOKENS


def _object(line: bytes) -> dict:
    try:
        found = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
