"""Golden files: "seed<S>/<input>" and "seed<S>/case<C>/<output>"; `meta`, a JSON of seeds and cases."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np

METHODS = (
    "visionzip fastervlm scope divprune cdpruner mmtok vispruner prumerge hiprune holov flowcut tome gtp "
    "recoverable dart todre zero_tprune"
).split()
OWN = Path(__file__).parents[2] / "golden"


def module_of(method):
    return import_module(f"{__package__}.{method}")


def read(method, folder=OWN):
    """(meta, arrays by key) of a golden file; nothing in it is executed."""
    with np.load(folder / f"{method}.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("meta"))), arrays


def read_inputs(arrays, seed):
    """Inputs of one seed, float64."""
    start = f"seed{seed}/"
    names = [name for name in arrays if name.startswith(start) and name.count("/") == 1]
    return {name[len(start) :]: arrays[name].astype(np.float64) for name in names}


def read_outputs(arrays, seed, case):
    start = f"seed{seed}/case{case}/"
    return {name[len(start) :]: a for name, a in arrays.items() if name.startswith(start)}


def trimmed(a, b):
    """Row `b` without its padding: places end at the first -1, rows of values are left as they are."""
    return a[b][a[b] >= 0] if a.dtype == np.int16 else a[b]


def stacked(rows):
    """Arrays of several images as one: places int16 padded with -1, numbers float32 padded with zeros."""
    rows = [np.asarray(row) for row in rows]
    whole = all(row.dtype.kind == "i" or row.size == 0 for row in rows)
    length = max(len(row) for row in rows)
    shape = next(row for row in rows if len(row) == length).shape
    out = np.full((len(rows), *shape), -1 if whole else 0, dtype=np.int16 if whole else np.float32)
    for b, row in enumerate(rows):
        out[b, : len(row)] = row
    return out
