"""The check of the finalists: tests on images that the search did not use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .search import Trial

if TYPE_CHECKING:
    from .measurements import Measurements

Cost = Callable[[Trial], float]


def front(trials: Sequence[Trial], cost: Cost, unpruned: float) -> list[Trial]:
    """Trials below the cost of no pruning, `unpruned`, from the dearest, hence safest, to the cheapest.

    A trial that one of another candidate beats, cheaper and no worse, is excluded. All ratios of one
    candidate stay: that a lower one seemed as good on a few images says little, and the safer one is the
    fallback.
    """
    cheaper = [trial for trial in trials if cost(trial) < unpruned]
    undominated = [
        one
        for one in cheaper
        if not any(
            other.candidate != one.candidate and cost(other) <= cost(one) and other.mean >= one.mean
            for other in cheaper
        )
    ]
    return sorted(undominated, key=cost, reverse=True)


def walk(
    trials: Sequence[Trial], measurements: Measurements, target: float, confidence: float
) -> Trial | None:
    """The last trial of a front before the first that does not show the target on the images for checking.

    The order comes from the images of the search, and the walk ends where one fails: so the confidence holds
    for the trial returned, however many were checked (fixed-sequence testing as in Learn then Test,
    arXiv:2110.01052, along a Pareto front as in Pareto Testing, arXiv:2210.07913). It starts at the cheapest
    whose bound is twice as far from its mean as it must be; None if the first one fails.
    """
    easy = [i for i, trial in enumerate(trials) if 2 * trial.low - trial.mean >= target]
    chosen = None
    for trial in trials[max(easy, default=0) :]:
        measurements.bar.set_description(f"check of {trial.candidate} at {trial.ratio:g}")
        values = measurements.values(trial.config, "check")
        low, high = measurements.task.bounds(values, confidence, len(values))
        trial.checked = (sum(values) / len(values), low, high)
        if low < target:
            break
        chosen = trial
    if chosen is not None:
        chosen.chosen = True
    return chosen
