"""The search for configs worth checking: bisection over every candidate's ratio, losers abandoned early."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import VTPConfig
from .candidates import RATIOS, Candidate

if TYPE_CHECKING:
    from .measurements import Measurements

FINALISTS = 4  # candidates that are timed and checked
SAFER = (0, 1, 2, 4, 8, 12)  # steps of RATIOS above the least ratio that met the target
SLACK = 0.1  # a candidate with so much more FLOPs than the best may still be faster


@dataclass
class Trial:
    """One config that was tried. Bounds are one-sided, each at the confidence asked for.

    Attributes:
        flops: of one batch.
        mean, low, high: quality on the images of the search, and the bounds that all images for checking
            would give if they scatter as these.
        per_second: images or prompts, None for a trial that was not timed.
        checked: mean, low and high on the images for checking, None for a trial that was not checked.
    """

    candidate: Candidate
    ratio: float
    config: VTPConfig
    flops: int
    mean: float
    low: float
    high: float
    per_second: float | None = None
    checked: tuple[float, float, float] | None = None
    chosen: bool = False


class Search:
    """Tries candidates in their order; once the budget of evaluations is spent, no new one counts as good.

    Attributes:
        unpruned, best: FLOPs of the unpruned model, and of the cheapest trial that met the target.
        least: the place in RATIOS of the least ratio that met the target, by candidate.
    """

    def __init__(
        self, measurements: Measurements, target: float, confidence: float, budget: int, slack: float
    ):
        self.measurements, self.target, self.confidence = measurements, target, confidence
        self.budget, self.slack = budget, slack
        self.trials: dict[tuple[Candidate, float], Trial] = {}
        self.work: dict[tuple[Candidate, float], int] = {}
        self.unpruned = self.best = measurements.flops(None)
        self.least: dict[Candidate, int] = {}

    def run(self, candidates: Sequence[Candidate]) -> None:
        """Find the least good ratio of every candidate, but of none that can only cost more than the best."""
        for number, candidate in enumerate(candidates, start=1):
            self.measurements.bar.set_description(f"candidate {number} of {len(candidates)}, {candidate}")
            steps, limit = range(len(RATIOS)), -min(self.unpruned, self.best * (1 + self.slack))
            # first ratio that costs less than the best so far: if it is not good, no smaller one is
            first = bisect_right(steps, limit, key=lambda i, c=candidate: -self.flops(c, i))
            if first == len(RATIOS) or not self.good(candidate, first):
                continue
            bad = bisect_left(steps, True, lo=first + 1, key=lambda i, c=candidate: not self.good(c, i))
            self.least[candidate] = bad - 1
            self.best = min(self.best, self.flops(candidate, bad - 1))

    def finalists(self) -> Iterator[Trial]:
        """The cheapest candidates at the least ratio that met the target, and at some safer ones."""
        cost = {candidate: self.flops(candidate, step) for candidate, step in self.least.items()}
        cheap = [c for c in sorted(cost, key=cost.get) if cost[c] <= self.best * (1 + self.slack)]
        for candidate in cheap[:FINALISTS]:
            steps = [self.least[candidate] - more for more in SAFER]
            yield from (self.trial(candidate, step) for step in steps if step >= 0)

    def good(self, candidate: Candidate, step: int) -> bool:
        """Whether all the images for checking would show that the target is met."""
        if (candidate, RATIOS[step]) not in self.trials and self.budget <= 0:
            return False
        return self.trial(candidate, step).low >= self.target

    def trial(self, candidate: Candidate, step: int) -> Trial:
        """A candidate at a ratio; tried once."""
        key = candidate, RATIOS[step]
        if key not in self.trials:
            self.budget -= 1
            config, flops = candidate.config(RATIOS[step]), self.flops(candidate, step)
            values = self.measurements.values(config, "search")
            bounds = self.measurements.task.bounds
            low, high = bounds(values, self.confidence, self.measurements.num["check"])
            mean = sum(values) / len(values)
            self.trials[key] = Trial(*key, config, flops, mean, low, high)
        return self.trials[key]

    def flops(self, candidate: Candidate, step: int) -> int:
        key = candidate, RATIOS[step]
        if key not in self.work:
            self.work[key] = self.measurements.flops(candidate.config(RATIOS[step]))
        return self.work[key]
