"""The cases of an evaluation: the unpruned model, the methods asked for, and every table's baselines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...config import VTPConfig
from ..bench.cli import UsageError

UNPRUNED, DOWNSAMPLE = "unpruned", "downsample"
BASELINES = ("random", "uniform", "random+absorb", "uniform+absorb")  # downsample is one too


@dataclass(frozen=True)
class Case:
    """One way to run the model. Cases that differ only in their seed make one row of the table.

    Attributes:
        method: "unpruned", "downsample" or a method, with `+merger` where it replaces the method's own.
        keep_ratio: share of tokens kept; None for the unpruned model.
        layer: where tokens leave, as a table shows it; "-" where nothing leaves inside the model.
        seed: of random scores, None where nothing is random.
        config: what to apply, None for the model as it is.
    """

    method: str = UNPRUNED
    keep_ratio: float | None = None
    layer: str = "-"
    seed: int | None = None
    config: VTPConfig | None = None

    @property
    def row(self) -> tuple[str, float | None, str]:
        """Its row of the table: method, ratio and layer."""
        return self.method, self.keep_ratio, self.layer

    @property
    def name(self) -> str:
        """All of it in words, the same in every run: predictions are stored under it."""
        words = [self.method] if self.keep_ratio is None else [self.method, f"{self.keep_ratio:g}"]
        words += [] if self.layer == "-" else [f"layer {self.layer}"]
        return " ".join(words + ([] if self.seed is None else [f"seed {self.seed}"]))


def make_cases(
    methods: Iterable[str], keep_ratios: Iterable[float], layers: Iterable, seeds: int, positions: str
) -> list[Case]:
    """The unpruned model, then for each ratio downsample, and for each layer the baselines and the methods.

    A method may be given as `NAME+MERGER`; `seeds` runs of what draws its scores at random. Raises UsageError
    for what VTPConfig refuses.
    """
    cases, names = [Case()], list(dict.fromkeys([*BASELINES, *methods]))
    for ratio in keep_ratios:
        cases.append(Case(DOWNSAMPLE, ratio))
        for layer in layers:
            for name in names:
                cases += _seeded(name, ratio, layer, seeds, positions)
    return cases


def _seeded(name: str, keep_ratio: float, layer, seeds: int, positions: str) -> list[Case]:
    method, _, merger = name.partition("+")
    if method in (UNPRUNED, DOWNSAMPLE):
        raise UsageError(f"every table holds the row {method} already; leave it out of --method")
    fields = {"method": method, "merger": merger or None, "keep_ratio": keep_ratio, "positions": positions}
    try:
        config = VTPConfig(layer=layer, **fields)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    place = "default" if layer is None else ",".join(map(str, layer if isinstance(layer, tuple) else [layer]))
    if config.part("scorer")[0] != "random":
        return [Case(name, keep_ratio, place, None, config)]
    seeded = [config.replace(scorer_options={"seed": seed}) for seed in range(seeds)]
    return [Case(name, keep_ratio, place, seed, config) for seed, config in enumerate(seeded)]
