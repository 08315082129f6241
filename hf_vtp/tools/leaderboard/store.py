"""Results on disk: one JSON file for each model and row, which holds the row's cells by point."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..bench.cli import UsageError, reason, replacing

FORMAT = "hf_vtp_leaderboard"
LARGEST = 4 << 20  # bytes of a file


class Store:
    """The folder of results; cells are dicts of plain values."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, model: str, row: str) -> Path:
        return self.folder / model / f"{re.sub(r'[^a-zA-Z0-9+.-]+', '_', row).strip('_')}.json"

    def read(self, model: str, row: str) -> dict[str, dict]:
        """The cells of a row by the key of their point; raises UsageError for a file of another kind."""
        return _cells(self.path(model, row))

    def add(self, model: str, row: str, cells: dict[str, dict]) -> None:
        """Put cells beside those that are there, or in their place; a file is written whole or not at all."""
        path = self.path(model, row)
        cells = {**self.read(model, row), **cells}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "model": model, "row": row, "cells": cells}, indent=1)
        with replacing(path) as new:
            new.write_text(text + "\n", encoding="utf-8")

    def all(self, model: str) -> dict[str, dict[str, dict]]:
        """The cells of every row of a model, by row and key."""
        found = {}
        for path in sorted((self.folder / model).glob("*.json")):
            found[_read(path)["row"]] = _cells(path)
        return found


def _read(path: Path) -> dict:
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"format": FORMAT, "cells": {}}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({reason(error)}); delete it to measure again") from None
    right = isinstance(found, dict) and found.get("format") == FORMAT and isinstance(found.get("cells"), dict)
    if not right or not all(isinstance(cell, dict) for cell in found["cells"].values()):
        raise UsageError(f"{path} holds no results of a leaderboard; delete it to measure again")
    return found


def _cells(path: Path) -> dict[str, dict]:
    return _read(path)["cells"]
