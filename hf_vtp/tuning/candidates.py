"""The candidates that tune tries: methods, the layers where tokens leave, and schedules of several stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ..config import VTPConfig
from ..families.table import adapter_for, reads_text
from ..model_config import num_layers
from ..schedule import OUTPUT, SCHEDULES, shares

METHODS_TRIED = ("vtp", "divprune", "tome")
SPANS = ((1 / 4, 3 / 4, 5), (1 / 6, 1 / 2, 4), (1 / 4, 3 / 4, 3))  # first and last share of the depth, layers
RATIOS = tuple(round(1 - 0.05 * step, 2) for step in range(1, 20))  # 0.95, 0.9 … 0.05


@dataclass(frozen=True)
class Candidate:
    """A method at a place; the search finds its ratio.

    Attributes:
        layer: as in VTPConfig, a list as a tuple.
        schedule: a name in SCHEDULES; None for one stage, and for a method at its own place.
        base: the fields that all candidates share.
    """

    method: str
    layer: int | tuple[int, ...] | str | None
    schedule: str | None
    base: VTPConfig

    def __hash__(self) -> int:
        return hash((self.method, self.layer, self.schedule))

    def config(self, ratio: float) -> VTPConfig:
        """The config that keeps `ratio` of the tokens after the last stage."""
        ratios = ratio
        if self.schedule is not None:
            ratios = [round(share, 4) for share in shares(ratio, len(self.layer), self.schedule)]
        return self.base.replace(method=self.method, layer=self.layer, keep_ratio=ratios)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.method, f"layer {place(self.layer)}", self.schedule)))


def place(layer: int | tuple[int, ...] | str | None) -> str:
    """A layer as a table shows it."""
    return "own" if layer is None else ",".join(map(str, layer)) if isinstance(layer, tuple) else str(layer)


def make_candidates(
    model: nn.Module,
    methods: Sequence[str],
    layers: Sequence | None,
    schedules: Sequence[str],
    base: VTPConfig,
) -> list[Candidate]:
    """Every method at every place. Default places and methods that do not fit the model are skipped.

    Raises ValueError or TypeError for what VTPConfig or the model's adapter refuses.
    """
    unknown = [name for name in schedules if name not in SCHEDULES]
    if unknown or not schedules:
        raise ValueError(f"schedules must be some of {list(SCHEDULES)}, not {list(schedules)!r}")
    if isinstance(methods, str) or not methods:
        raise ValueError(f"methods must be a list of at least one method, not {methods!r}")
    make = adapter_for(model)
    chosen = places(model, reads_text(model)) if layers is None else list(layers)
    if not chosen:
        raise ValueError("layers must list at least one place to prune at, or be None")
    found = []
    for method in methods:
        fit, refused = [], None
        for candidate in _at(method, chosen, schedules, base):
            try:
                make(model, candidate.config(RATIOS[0]))
            except ValueError as error:
                refused = error
                if layers is not None:
                    raise
            else:
                fit.append(candidate)
        if not fit and tuple(methods) != METHODS_TRIED:
            raise refused
        found += fit
    if not found:
        raise refused
    return found


def _at(method: str, layers: Sequence, schedules: Sequence[str], base: VTPConfig) -> Iterator[Candidate]:
    for layer in layers:
        layer = tuple(layer) if isinstance(layer, list | tuple) else layer
        for schedule in schedules if isinstance(layer, tuple) and len(layer) > 1 else [None]:
            yield Candidate(method, layer, schedule, base)


def places(model: nn.Module, reads_text: bool) -> list:
    """A method's own place; layers spread over parts of the depth; one layer; after the tower."""
    depth = num_layers(model) or 1
    spans = [spread(depth, first, last, count) for first, last, count in SPANS]
    layers = [None, *(span for span in spans if len(span) > 1), depth // 4, depth // 2]
    return list(dict.fromkeys(layers + ([OUTPUT] if reads_text else [])))


def spread(depth: int, first: float, last: float, count: int) -> tuple[int, ...]:
    """`count` layers from one share of the depth to another, fewer where two of them are the same."""
    shares = (first + (last - first) * i / (count - 1) for i in range(count))
    return tuple(sorted({int(depth * share) for share in shares}))
