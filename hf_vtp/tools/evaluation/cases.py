"""The cases of an evaluation: the unpruned model, the methods asked for, and every table's baselines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...config import VTPConfig
from ..bench.cli import UsageError
from .equal_flops import Solved

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
        flops: the share of the unpruned tower's FLOPs that keep_ratio is to be solved for, if it is.
        solved: what was found for it.
    """

    method: str = UNPRUNED
    keep_ratio: float | None = None
    layer: str = "-"
    seed: int | None = None
    config: VTPConfig | None = None
    flops: float | None = None
    solved: Solved | None = None

    @property
    def row(self) -> tuple[str, float | None, str]:
        """Its row of the table: method, ratio or share of FLOPs, and layer."""
        return self.method, self.keep_ratio if self.flops is None else self.flops, self.layer

    @property
    def columns(self) -> dict:
        """The same by name, and what was solved."""
        row = {"method": self.method, "keep_ratio": self.keep_ratio, "layer": self.layer}
        if self.solved is not None:
            row |= {"flops": self.flops, "flop_share": self.solved.share}
            row |= {"flop_problem": self.solved.problem} if self.solved.problem else {}
        return row

    @property
    def name(self) -> str:
        """All of it in words, the same in every run: predictions are stored under it."""
        words = [self.method] if self.keep_ratio is None else [self.method, f"{self.row[1]:g}"]
        words[1:1] = [] if self.flops is None else ["flops"]
        words += [] if self.layer == "-" else [f"layer {self.layer}"]
        return " ".join(words + ([] if self.seed is None else [f"seed {self.seed}"]))

    def at(self, solved: Solved) -> Case:
        """The same with the keep_ratio that was found."""
        config = self.config and self.config.replace(keep_ratio=solved.keep_ratio)
        return replace(self, keep_ratio=solved.keep_ratio, config=config, solved=solved)


def make_cases(
    methods: Iterable[str],
    keep_ratios: Iterable[float],
    layers: Iterable,
    seeds: int,
    positions: str,
    flops: Iterable[float] = (),
) -> list[Case]:
    """The unpruned model, then for each ratio downsample, and for each layer the baselines and the methods.

    A method may be given as `NAME+MERGER`; `seeds` runs of what draws its scores at random. With `flops`,
    shares of FLOPs take the place of the ratios, and each case's own ratio is still to be solved. Raises
    UsageError for what VTPConfig refuses, and for a share that is none.
    """
    cases, names = [Case()], list(dict.fromkeys([*BASELINES, *methods]))
    for share in flops:
        if not 0 < share < 1:
            raise UsageError(f"--flops must lie between 0 and 1, not {share:g}")
    amounts = [(share, share) for share in flops] or [(ratio, None) for ratio in keep_ratios]
    for ratio, share in amounts:
        cases.append(Case(DOWNSAMPLE, ratio, flops=share))
        for layer in layers:
            for name in names:
                made = _seeded(name, ratio, layer, seeds, positions)
                cases += [replace(case, flops=share) for case in made]
    return cases


def amount(row: dict, prefix: str = "") -> str:
    """What a row of a table or of comparisons was asked for, in words: a share of FLOPs, or of tokens."""
    flops = row.get(f"{prefix}flops")
    return f"keep {row[f'{prefix}keep_ratio']:g}" if flops is None else f"FLOPs {flops:g}"


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
