"""Weights of trained scorers: a few named tensors from a safetensors file, bounded, nothing executed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, bfloat16, float16, float32, float64

from .bounded_json import shortened

NAME = "probe.safetensors"  # in a folder, and in a repository on the Hub
MAX_BYTES = 64 * 2**20
MAX_HEADER = 64 * 2**10
FLOATS = (float16, bfloat16, float32, float64)
LINEAR = ("norm.weight", "norm.bias", "linear.weight", "linear.bias")
HIDDEN = (*LINEAR, "hidden.weight", "hidden.bias")


@dataclass(frozen=True)
class Probe:
    """LayerNorm, one hidden layer with GELU or none, and a linear layer to one number; float32.

    Attributes:
        norm: weight and bias, [D] each.
        hidden: weight [H, D] and bias [H], or None.
        linear: weight [D] or [H], and bias [].
    """

    norm: tuple[Tensor, Tensor]
    hidden: tuple[Tensor, Tensor] | None
    linear: tuple[Tensor, Tensor]

    def to(self, device) -> Probe:
        """The same on a device."""
        return Probe(*(part and tuple(x.to(device) for x in part) for part in vars(self).values()))


def find(name: str, revision: str | None = None) -> Path:
    """The file of a probe: a path of it, of the folder it is in, or a repository on the Hub.

    Raises ValueError for a name that is none of these, OSError with one sentence for what is missing or out
    of reach.
    """
    if os.path.isfile(name):
        return Path(name)
    if os.path.isdir(name):
        if not (Path(name) / NAME).is_file():
            raise FileNotFoundError(f"the folder {name} has no {NAME}")
        return Path(name) / NAME
    from .hub import download, is_repo_id  # here, since `import hf_vtp` need not bring the Hub's client

    if name.startswith((".", "~", os.sep)) or name.endswith(".safetensors") or not is_repo_id(name):
        shown = shortened(repr(name))
        raise ValueError(f"{shown} is no file, no folder and no name on the Hub such as 'user/repo'")
    return download(name, NAME, MAX_BYTES, "probe", revision=revision)


def read(path: Path, source: str) -> Probe:
    """The probe in a file, which errors call `source`; raises ValueError with one sentence."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{source} is larger than {MAX_BYTES} bytes, which no probe is")
    if int.from_bytes(data[:8], "little") > MAX_HEADER:
        raise ValueError(f"{source} is no safetensors file with a header of at most {MAX_HEADER} bytes")
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that torch lacks
        raise ValueError(f"{source} is no safetensors file ({shortened(str(error))})") from None
    return checked(tensors, source)


def checked(tensors: dict[str, Tensor], source: str) -> Probe:
    """The tensors as a probe; raises ValueError with one sentence unless names, types and shapes fit."""
    names = HIDDEN if any(name.startswith("hidden.") for name in tensors) else LINEAR
    if set(tensors) != set(names):
        missing, more = (sorted(a - b) for a, b in ((set(names), set(tensors)), (set(tensors), set(names))))
        what = f"lacks {missing[0]}" if missing else f"has {shortened(repr(more[0]))} too"
        raise ValueError(f"{source} {what}; a probe holds {', '.join(names)}")
    width = tensors["norm.weight"].numel()
    inner = tensors["hidden.bias"].numel() if names == HIDDEN else width
    shapes = {
        "norm.weight": (width,),
        "norm.bias": (width,),
        "linear.weight": (1, inner),
        "linear.bias": (1,),
    }
    shapes |= {"hidden.weight": (inner, width), "hidden.bias": (inner,)} if names == HIDDEN else {}
    for name, shape in shapes.items():
        x = tensors[name]
        if x.dtype not in FLOATS or tuple(x.shape) != shape or not x.numel():
            kind = str(x.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} of {source} must hold floats in the shape {list(shape)}, not {kind} {list(x.shape)}"
            )
        if not x.isfinite().all():
            raise ValueError(f"{name} of {source} holds numbers that are not finite")
    plain = {name: x.float() for name, x in tensors.items()}
    hidden = (plain["hidden.weight"], plain["hidden.bias"]) if names == HIDDEN else None
    linear = plain["linear.weight"][0], plain["linear.bias"][0]
    return Probe((plain["norm.weight"], plain["norm.bias"]), hidden, linear)
