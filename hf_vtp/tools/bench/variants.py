"""What is compared: a model as it is, and pruned in several ways."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ...apply import apply_vtp, remove_vtp
from ...config import VTPConfig
from .cli import UsageError

UNPATCHED = "unpatched"


@dataclass(frozen=True)
class Case:
    """One row of the table; without a config, the model as Transformers made it."""

    method: str = UNPATCHED
    keep_ratio: float | None = None
    config: VTPConfig | None = None
    apart: str = ""  # what else tells its name from others of that method and ratio

    @property
    def name(self) -> str:
        return self.method if self.config is None else f"{self.method} {self.keep_ratio}{self.apart}"


def make_cases(
    methods: Iterable[str], keep_ratios: Iterable[float], layer: int | list[int] | None
) -> list[Case]:
    """The unpatched model, then every method at every ratio; raises UsageError for what VTPConfig refuses."""
    try:
        configs = [VTPConfig(method=m, keep_ratio=r, layer=layer) for m in methods for r in keep_ratios]
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    return [Case(), *(Case(c.method, c.keep_ratio, c) for c in configs)]


def switch(model: nn.Module, case: Case) -> nn.Module:
    """`model` pruned as the case says."""
    return remove_vtp(model) if case.config is None else apply_vtp(model, case.config)


class Variants:
    """One model that is switched from case to case; raises UsageError if it cannot be pruned so.

    With `compiled`, a copy for each case, since to switch a compiled model is to compile it again.
    """

    def __init__(self, model: nn.Module, cases: list[Case], compiled: bool = False):
        self.model = model
        self.cases = cases
        try:
            for case in cases:
                switch(model, case)
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from None
        finally:
            remove_vtp(model)
        self.compiled: dict[str, Callable] = {}
        if compiled:
            copies = {
                case.name: switch(copy.deepcopy(model), case) for case in cases
            }  # all before any is compiled
            limit = max(torch._dynamo.config.recompile_limit, 4 * len(cases))  # the copies share their code
            torch._dynamo.config.recompile_limit = limit
            self.compiled = {
                name: torch.compile(m, fullgraph=True, dynamic=False) for name, m in copies.items()
            }

    def eager(self, case: Case) -> nn.Module:
        """The model as the case has it; good until the next call."""
        return switch(self.model, case)

    def timed(self, case: Case) -> Callable:
        """What is timed: the compiled copy, or the same as `eager`."""
        return self.compiled[case.name] if self.compiled else self.eager(case)
