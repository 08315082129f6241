"""How fast a forward could be at best on a device: by its arithmetic, and by the bytes it moves."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .timing import synchronizer

PEAKS = (
    "the best of several products of square matrices, and of several copies; floors: FLOPs by the one, bytes "
    "that the operators of an eager forward read and write by the other"
)
SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices
COPIED = {"cuda": 1 << 30, "cpu": 1 << 27}  # bytes
TRIES = 7
LOOK_UPS = {
    "embedding",
    "gather",
    "index",
    "index_select",
}  # read as much as they write, not all they are given


def peaks(device: torch.device, dtype: torch.dtype) -> dict[str, float | str]:
    """FLOPs a second of a matrix product in this dtype, bytes a second of a copy (read and written)."""
    side = SIDE.get(device.type, SIDE["cpu"])
    square = torch.randn(side, side, device=device).to(dtype)
    source = torch.zeros(COPIED.get(device.type, COPIED["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "flops_per_s": 2 * side**3 / fastest(lambda: square @ square, device),
        "bytes_per_s": 2 * source.numel() / fastest(lambda: target.copy_(source), device),
        "meaning": PEAKS,
    }


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """The fewest seconds of several calls, after one that is not timed."""
    synchronize, seconds = synchronizer(device), []
    for _ in range(1 + TRIES):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


class Moved(TorchDispatchMode):
    """Adds up the bytes that operators read and write; views cost nothing.

    torch has a counter of FLOPs but none of bytes: its profiler knows shapes of inputs, not types or outputs.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        written = tensors(output)
        read = tensors((args, kwargs))
        own = {x.untyped_storage().data_ptr() for x in read}
        changes = function._schema.is_mutable
        if not changes and all(x.untyped_storage().data_ptr() in own for x in written):
            return output  # a view
        if function.overloadpacket.__name__ in LOOK_UPS:
            read = written
        self.total += sum(map(size, read)) + sum(map(size, written))
        return output


def tensors(tree: object) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def size(x: Tensor) -> int:
    """Bytes behind a tensor; one that is expanded has no more than it had."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def bytes_moved(call: Callable[[], object]) -> int:
    """Bytes that the operators of one call read and write."""
    with Moved() as mode:
        call()
    return mode.total


def floors(flops: float, moved: int, peak: dict, milliseconds: float) -> dict[str, float]:
    """The two floors of a case in milliseconds, and how many times the higher one was measured."""
    arithmetic, memory = 1e3 * flops / peak["flops_per_s"], 1e3 * moved / peak["bytes_per_s"]
    return {
        "gbyte_moved": moved / 1e9,
        "arithmetic_floor_ms": arithmetic,
        "memory_floor_ms": memory,
        "times_floor": milliseconds / max(arithmetic, memory),
    }
