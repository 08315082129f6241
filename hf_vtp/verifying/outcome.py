"""What a check gives back: an Outcome, or NotApplicable."""

from __future__ import annotations

from dataclasses import dataclass

from ..differences import Difference


class NotApplicable(Exception):
    """Why a promise says nothing of this model, config or input."""


@dataclass
class Outcome:
    """What a check found: it holds where the difference is within the bound and nothing is `wrong`."""

    difference: Difference
    bound: float
    wrong: str = ""
    detail: str = ""
    undecided: bool = False

    @property
    def holds(self) -> bool | None:
        if self.undecided:
            return None
        return not self.wrong and self.difference.relative <= self.bound  # no number is within no bound
