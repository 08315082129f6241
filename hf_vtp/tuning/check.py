"""Which of the finalists may be returned: tests on images that the search has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .search import Trial
from .trials import Lab

Cost = Callable[[Trial], float]


def front(trials: Sequence[Trial], cost: Cost, whole: float) -> list[Trial]:
    """Those below the cost of no pruning, `whole`, from the dearest, hence safest, to the cheapest.

    One that another candidate beats, cheaper and no worse, is left out. Of one candidate all ratios stay:
    that a lower one seemed as good on a few images says little, and the safer one is what to fall back on.
    """
    cheaper = [trial for trial in trials if cost(trial) < whole]
    kept = [
        one
        for one in cheaper
        if not any(
            other.candidate != one.candidate and cost(other) <= cost(one) and other.mean >= one.mean
            for other in cheaper
        )
    ]
    return sorted(kept, key=cost, reverse=True)


def walk(trials: Sequence[Trial], lab: Lab, target: float, confidence: float) -> Trial | None:
    """The last trial of a front before the first that does not show the target on the images for checking.

    The order comes from the images of the search, and the walk ends where one fails: so the confidence holds
    for the trial returned, however many were checked (fixed-sequence testing as in Learn then Test,
    arXiv:2110.01052, along a Pareto front as in Pareto Testing, arXiv:2210.07913). It starts at the cheapest
    whose bound is twice as far from its mean as it must be; None if the first one fails.
    """
    easy = [i for i, trial in enumerate(trials) if 2 * trial.low - trial.mean >= target]
    chosen = None
    for trial in trials[max(easy, default=0) :]:
        lab.bar.set_description(f"check of {trial.candidate} at {trial.ratio:g}")
        values = lab.values(trial.config, "check")
        low, high = lab.task.bounds(values, confidence, len(values))
        trial.checked = (sum(values) / len(values), low, high)
        if low < target:
            break
        chosen = trial
    if chosen is not None:
        chosen.chosen = True
    return chosen
