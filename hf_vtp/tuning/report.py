"""The report of tune, as a sentence, a table and JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .candidates import place
from .search import Trial

UNIT = {"cosine": "images", "agreement": "prompts"}


@dataclass(frozen=True)
class TuneReport:
    """Every config that was tried, in the order of the search.

    Attributes:
        quality: "cosine" or "agreement".
        num_images: images or prompts by part, "search" and "check".
        num_candidates: methods at places. Those in no row could not beat the best by FLOPs, or came after the
            budget was spent.
        budget_left: the number of configs that the search might still have tried.
        unpruned_flops, unpruned_per_second: of the unpruned model; FLOPs of a batch, images or prompts a
            second.
        trials: see Trial.
    """

    quality: str
    target: float
    confidence: float
    by: str
    seed: int
    num_images: dict[str, int]
    num_candidates: int
    budget_left: int
    unpruned_flops: int
    unpruned_per_second: float | None
    environment: dict
    trials: Sequence[Trial]

    @property
    def chosen(self) -> Trial | None:
        """The trial whose config was returned; None where that is no pruning."""
        return next((trial for trial in self.trials if trial.chosen), None)

    @property
    def met(self) -> bool:
        """Whether there is a config that prunes, is faster and meets the target."""
        return self.chosen is not None

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        wanted = f"{self.quality} {self.target:g}"
        if not self.met:
            saves = "time" if self.by == "throughput" else "FLOPs"
            return (
                f"Nothing that was tried saves {saves} and shows {wanted} with confidence "
                f"{self.confidence:g}: keep_ratio is 1.0, no pruning. A lower target or more images may help."
            )
        trial = self.chosen
        gain = f"{self.unpruned_flops / trial.flops:.2f} times fewer FLOPs"
        if trial.per_second is not None:
            gain = f"{trial.per_second / self.unpruned_per_second:.2f} times as fast, {gain}"
        mean, low, _ = trial.checked
        return (
            f"{trial.candidate} at keep_ratio {trial.ratio:g}: {gain}; {self.quality} {mean:.4f} on "
            f"{self.num_images['check']} other {UNIT[self.quality]}, at least {low:.4f} with confidence "
            f"{self.confidence:g} (target {self.target:g})."
        )

    def rows(self) -> list[dict]:
        """A plain dict for each trial."""
        return [self._row(trial) for trial in self.trials]

    def _row(self, trial: Trial) -> dict:
        speed = trial.per_second
        checked = dict(zip(("mean", "low", "high"), trial.checked or (None,) * 3, strict=True))
        return {
            "method": trial.candidate.method,
            "layer": place(trial.candidate.layer),
            "schedule": trial.candidate.schedule,
            "keep_ratio": trial.ratio,
            "config": trial.config.to_dict(),
            "flop_ratio": self.unpruned_flops / trial.flops,
            "search": {"mean": trial.mean, "low": trial.low, "high": trial.high},
            "check": checked if trial.checked else None,
            "per_second": speed,
            "speedup": None if speed is None else speed / self.unpruned_per_second,
            "met": (trial.checked[1] if trial.checked else trial.low) >= self.target,
            "chosen": trial.chosen,
        }

    def to_dict(self) -> dict:
        """All of it as plain values."""
        asked = ("quality", "target", "confidence", "by", "seed")
        names = (*asked, "num_images", "num_candidates", "budget_left")
        return {
            "met": self.met,
            "summary": self.summary,
            **{name: getattr(self, name) for name in names},
            "unpruned": {"flops": self.unpruned_flops, "per_second": self.unpruned_per_second},
            "environment": self.environment,
            "rows": self.rows(),
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write it as JSON."""
        from ..tools.bench.report import write_json

        write_json(Path(path), self.to_dict())

    def print(self) -> None:
        """The table and the sentence on stdout."""
        from ..tools.bench.report import print_table

        columns = (
            ("method", lambda row: row["method"]),
            ("layer", lambda row: row["layer"]),
            ("schedule", lambda row: row["schedule"] or "-"),
            ("keep", lambda row: f"{row['keep_ratio']:g}"),
            ("FLOP\nratio", _number("flop_ratio", 2)),
            (f"{UNIT[self.quality]}\n/s", _number("per_second", 1)),
            ("speed-\nup", _number("speedup", 2)),
            (f"{self.quality}\nsearch", lambda row: _interval(row["search"])),
            (f"{self.quality}\ncheck", lambda row: _interval(row["check"])),
            ("", lambda row: "chosen" if row["chosen"] else "met" if row["met"] else "not met"),
        )
        title = f"{self.quality} of at least {self.target:g}, by {self.by}"
        notes = [
            f"After each mean its one-sided bounds at confidence {self.confidence:g}; a search's are those "
            f"that as many as the {self.num_images['check']} {UNIT[self.quality]} for checking would give.",
            self.summary,
        ]
        print_table(title, columns, self.rows(), notes, ("method", "layer", "schedule"))


def _number(key: str, digits: int):
    return lambda row: "-" if row[key] is None else f"{row[key]:.{digits}f}"


def _interval(found: dict | None) -> str:
    return "-" if found is None else "{mean:.4f} ({low:.4f} to {high:.4f})".format(**found)
