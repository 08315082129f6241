"""Quality metrics as `evaluate` modules, one a file, loaded from here: nothing asks the Hub.

`load("anls").compute(predictions=[…], references=[…])`; with `items=True` the score of every item comes too,
which paired comparisons are made of. Elsewhere `evaluate.load("path/to/anls.py")` takes the same files.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))


def load(name: str):
    """The `evaluate` module of that name; raises ValueError that lists the known ones.

    It keeps what it is given in memory: on disk, two processes would wait for each other's files.
    """
    if name not in NAMES:
        raise ValueError(f"unknown metric {name!r}; choose from {NAMES}")
    import evaluate  # here, because it imports `datasets`, and both take a second

    return evaluate.load(str(FOLDER / f"{name}.py"), keep_in_memory=True)
