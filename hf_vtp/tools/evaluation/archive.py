"""A folder of labelled images in .zip archives beside one list of labels, labels.json."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from ..bench.cli import UsageError, first_sentence
from ..bench.decode import BROKEN, MOST_BYTES

LABELS = "labels.json"
MOST_LABELS = 1 << 20
FORMAT = 'a list of objects as in {"file": "a.jpg", "label": 0, "class": "tench"}'


def open_archive(folder: Path):
    """A dataset of `datasets` with image and label, and the labels' names if any; None for another folder.

    labels.json is a list of objects with `file` (a member of one of the .zip archives beside it), `label` (a
    number from 0) and perhaps `class` (its name); a number without an image is called "". Raises UsageError
    for one that is something else.
    """
    table, archives = folder / LABELS, sorted(folder.glob("*.zip"))
    if not table.is_file() or not archives:
        return None
    import datasets

    members = {}
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as file:
                small = [info.filename for info in file.infolist() if info.file_size <= MOST_BYTES]
        except BROKEN as error:
            raise UsageError(f"{archive} cannot be read: {first_sentence(error)}") from None
        members |= {name: f"zip://{name}::{archive.resolve()}" for name in small}
    rows = _rows(table)
    missing = [row["file"] for row in rows if row["file"] not in members]
    if missing:
        raise UsageError(f"{table} names {missing[0]}, which no .zip archive beside it holds")
    names = {row["label"]: row.get("class") for row in rows}
    classes = None if None in names.values() else [names.get(i, "") for i in range(max(names) + 1)]
    features = {"image": datasets.Image(decode=False), "label": datasets.Value("int64")}
    columns = {
        "image": [{"bytes": None, "path": members[row["file"]]} for row in rows],
        "label": [row["label"] for row in rows],
    }
    loaded = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return loaded, classes


def _rows(table: Path) -> list[dict]:
    if table.stat().st_size > MOST_BYTES:
        raise UsageError(f"{table} is larger than {MOST_BYTES // 2**20} MiB")
    try:
        rows = json.loads(table.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{table} cannot be read: {first_sentence(error)}") from None
    if not (isinstance(rows, list) and rows and all(map(_is_row, rows))):
        raise UsageError(f"{table} must be {FORMAT}")
    return rows


def _is_row(row: object) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("file"), str)
        and type(row.get("label")) is int
        and 0 <= row["label"] < MOST_LABELS
        and isinstance(row.get("class", ""), str)
    )
