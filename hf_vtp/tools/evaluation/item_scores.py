"""The score of every item in every row of a table, as a compressed .npz file that holds no objects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...files import replacing
from .cases import Case
from .compare import scores_by_row
from .rows import Quality, by_row

ROWS = "rows"


def write_items(target: Path, cases: Sequence[Case], found: dict[str, Quality]) -> None:
    """One array [rows, items] of float32 by metric, and `rows`: a JSON object of each row's columns.

    Items are in the order of the data, without broken ones; of random methods, the mean over the seeds.
    """
    scores = scores_by_row(cases, found)
    columns = [json.dumps(same[0].columns) for same in by_row(cases).values()]
    metrics = next(iter(scores.values()))
    arrays = {name: np.stack([row[name] for row in scores.values()]).astype(np.float32) for name in metrics}
    with replacing(target) as path, path.open("wb") as file:
        np.savez_compressed(file, **{ROWS: np.array(columns)}, **arrays)


def read_items(path: Path) -> tuple[list[dict], dict[str, np.ndarray]]:
    """The columns of every row, and the scores [rows, items] by metric."""
    with np.load(path, allow_pickle=False) as file:
        return [json.loads(text) for text in file[ROWS]], {name: file[name] for name in file if name != ROWS}
