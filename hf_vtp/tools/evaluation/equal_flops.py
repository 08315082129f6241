"""The keep_ratio at which a pruned tower costs a wanted share of the unpruned tower's FLOPs.

Numbers of tokens are whole, so the share that is reached is near the wanted one and is reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import torch
from torch import nn

from ...config import VTPConfig
from ...methods.table import PARTS
from ..bench.flops import count_flops, countable
from ..cases import prune

TOLERANCE = 0.005  # of the unpruned tower's FLOPs
CLOSE = 0.001  # near enough to look no further
LEAST, FINEST, DIGITS = 1e-4, 1e-3, 4  # of a keep_ratio: the least tried, the search's width, its decimals


@dataclass(frozen=True)
class Solved:
    """The keep_ratio nearest to a wanted share of FLOPs.

    Attributes:
        keep_ratio: in (0, 1].
        share: of the unpruned tower's FLOPs, as counted at that keep_ratio.
        problem: why the share is further than TOLERANCE from the wanted one; "" where it is not.
    """

    keep_ratio: float
    share: float
    problem: str = ""


class FlopShares:
    """FLOPs of a model pruned as a config says, as a share of the unpruned model's; each config counts once.

    `forwards` are calls that run one image each through the model as it is then. Methods whose count follows
    the image are counted on all of them, others on the first. The model's pruning is taken off at the end.
    """

    def __init__(self, model: nn.Module, forwards: Sequence[Callable[[], object]]):
        self.model, self.forwards = model, forwards
        self.known: dict[tuple[str, int], float] = {}

    def __call__(self, config: VTPConfig) -> float:
        count = len(self.forwards) if follows_image(config) else 1
        return self._flops(config, count) / self._flops(None, count)

    def of_call(self, call: Callable[[], object]) -> float:
        """The share that another call costs, of the unpruned model on the first image."""
        with torch.no_grad(), countable(self.model):
            return count_flops(call) / self._flops(None, 1)

    def _flops(self, config: VTPConfig | None, count: int) -> float:
        key = repr(config), count
        if key not in self.known:
            with torch.no_grad(), countable(prune(self.model, config)):
                self.known[key] = fmean(count_flops(forward) for forward in self.forwards[:count])
            prune(self.model, None)
        return self.known[key]


def solve(config: VTPConfig, wanted: float, shares: Callable[[VTPConfig], float]) -> Solved:
    """The keep_ratio of a config, whose own is not read, for a share of FLOPs in (0, 1).

    Several layers share the reduction as the method says. `shares` counts a config, as FlopShares does.
    """
    return solve_ratio(lambda ratio: shares(config.replace(keep_ratio=ratio)), wanted)


def solve_ratio(share_of: Callable[[float], float], wanted: float) -> Solved:
    """The keep_ratio at which `share_of`, which rises with it and is 1 at 1, is nearest to `wanted`."""
    from scipy.optimize import brentq

    if not 0 < wanted < 1:
        raise ValueError(f"a share of FLOPs must lie between 0 and 1, not {wanted!r}")

    @cache
    def tried(ratio: float) -> float:
        found[ratio] = share_of(ratio)
        return found[ratio]

    def excess(ratio: float) -> float:
        difference = tried(round(ratio, DIGITS)) - wanted
        return 0.0 if abs(difference) <= CLOSE else difference  # 0 ends the search

    found: dict[float, float] = {}
    least = tried(LEAST)
    if least - wanted > TOLERANCE:
        return Solved(LEAST, least, f"its least FLOPs are {least:.3f} of the unpruned tower's")
    if least < wanted:
        brentq(excess, LEAST, 1.0, xtol=FINEST, disp=False)
    ratio = min(found, key=lambda ratio: abs(found[ratio] - wanted))
    share, problem = found[ratio], ""
    if abs(share - wanted) > TOLERANCE:
        problem = f"the nearest that it comes is {share:.3f} of the unpruned tower's FLOPs"
    return Solved(ratio, share, problem)


def follows_image(config: VTPConfig) -> bool:
    """Whether the number of tokens that a config keeps follows the image."""
    return any(table[config.part(part)[0]].keep_ratio != "exact" for part, table in PARTS.items())
