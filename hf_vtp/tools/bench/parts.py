"""How much of a call is spent inside which module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

Spent = dict[str, list[float]]  # by name, one number for each time the module ran


@contextmanager
def inside(modules: Mapping[str, nn.Module], read: Callable[[], float]) -> Iterator[Spent]:
    """What a reading (a synchronised clock, a counter of FLOPs) grew by in each run of each module.

    A module's own hooks count as its work. What runs in a module within another counts for the inner only.
    """
    spent: Spent = {name: [] for name in modules}
    open_runs: list[list[float]] = []  # the reading at the start, and what inner modules took since

    def enter(*_) -> None:
        open_runs.append([read(), 0])

    def leave(name: str) -> Callable:
        def hook(*_) -> None:
            start, inner = open_runs.pop()
            whole = read() - start
            spent[name].append(whole - inner)
            if open_runs:
                open_runs[-1][1] += whole

        return hook

    handles = []
    for name, module in modules.items():
        handles.append(module.register_forward_pre_hook(enter, prepend=True))
        handles.append(module.register_forward_hook(leave(name)))
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()
