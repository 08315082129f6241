"""Files of trained scorers for the tests: each kind, for tokens of one width."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file


def tensors(width, hidden=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = {"norm.weight": [width], "norm.bias": [width], "linear.weight": [1, hidden or width]}
    shapes |= {"linear.bias": [1]} | (
        {"hidden.weight": [hidden, width], "hidden.bias": [hidden]} if hidden else {}
    )
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


@cache
def folder():
    made = tempfile.TemporaryDirectory(prefix="probes-")
    return made  # its files go with the process


@cache
def probe(width, hidden=None):
    """The path of such a file."""
    path = Path(folder().name) / f"{width}-{hidden}.safetensors"
    save_file(tensors(width, hidden), path)
    return str(path)
