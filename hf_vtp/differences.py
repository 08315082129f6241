"""How far two results lie apart, and how far they may."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Relative, by what a model runs in: the bound that always holds, and the widest that rounding may ask for.
TOLERANCE = {
    "float64": (1e-4, 1e-3),  # rotary positions, norms and scores are in float32 all the same
    "float32": (1e-4, 1e-3),
    "tf32": (2e-3, 3e-2),
    "float16": (2e-3, 3e-2),
    "bfloat16": (1e-2, 1.5e-1),
}
COARSEST = (1e-2, 1.5e-1)  # of what has no row above
ROUNDING = {  # half the distance of two neighbouring numbers, relative
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
TIMES = 4  # a bound is so many times what rounding was seen to do
ROWS = 4096  # that are compared at once


@dataclass(frozen=True)
class Difference:
    """Of two tensors: the largest ‖a - b‖ / ‖b‖ of all rows is `relative`, the largest |a - b| `absolute`."""

    relative: float = 0.0
    absolute: float = 0.0

    def __or__(self, other: Difference) -> Difference:
        """The larger of both. One that is no number stays: it must never pass for a small one."""
        return Difference(_larger(self.relative, other.relative), _larger(self.absolute, other.absolute))


def _larger(a: float, b: float) -> float:
    return a if a != a or a > b else b


def between(found: Tensor, expected: Tensor) -> Difference:
    """The Difference of two tensors [..., D] of one shape, row by row; raises ValueError for two shapes."""
    if found.shape != expected.shape:
        raise ValueError(f"the shapes {list(found.shape)} and {list(expected.shape)} differ")
    if not found.numel():
        return Difference()
    found, expected = (
        x.reshape(-1, x.shape[-1] if x.dim() else 1) for x in (found, expected.to(found.device))
    )
    norms = torch.cat([part.float().norm(dim=-1) for part in expected.split(ROWS)])
    least = (
        norms.mean() * 1e-3 + torch.finfo(torch.float32).tiny
    )  # a row of zeros is compared with the others
    worst = Difference()
    for a, b, norm in zip(found.split(ROWS), expected.split(ROWS), norms.split(ROWS), strict=True):
        apart = a.float() - b.float()
        relative = (apart.norm(dim=-1) / norm.clamp(min=least)).amax()
        worst = worst | Difference(float(relative), float(apart.abs().amax()))
    return worst


def largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> Difference:
    """The largest Difference of several pairs (found, expected)."""
    worst = Difference()
    for found, expected in pairs:
        worst = worst | between(found, expected)
    return worst


def precision(model: nn.Module) -> str:
    """What a model computes in: the name of its dtype, or of autocast's, or "tf32"."""
    tensor = next(model.parameters())
    device = tensor.device.type
    dtype = getattr(model, "dtype", tensor.dtype)
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    name = str(dtype).removeprefix("torch.")
    if name == "float32" and device == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    return name


@dataclass(frozen=True)
class Bounds:
    """How large a relative difference may be.

    The tolerance somebody gave, or TIMES what rounding was seen to make of the unpruned model, at least and
    at most what TOLERANCE says of the precision.
    """

    precision: str
    given: float | None = None

    @property
    def unit(self) -> float:
        """The relative error that one rounding makes at most."""
        return ROUNDING.get(self.precision, ROUNDING["bfloat16"])

    @property
    def widest(self) -> float:
        return TOLERANCE.get(self.precision, COARSEST)[1] if self.given is None else self.given

    def over(self, rounding: Difference) -> float:
        """The bound where rounding makes such a difference."""
        if self.given is not None:
            return self.given
        least = TOLERANCE.get(self.precision, COARSEST)[0]
        return min(self.widest, max(least, TIMES * rounding.relative))
