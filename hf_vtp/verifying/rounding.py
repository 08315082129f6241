"""What rounding alone makes of this model: unpruned computations that are equal but for their order."""

from __future__ import annotations

import functools

from torch import Tensor

from .case import Case
from .differences import Bounds, Difference, between, largest
from .full_prompt import forward_positions, full_mask, same_prompt
from .tower_runs import full_features, full_outputs


class Measured(Case):
    """A case with how large differences may be on it."""

    def __init__(self, model, inputs: dict, config, max_new_tokens: int, bounds: Bounds):
        super().__init__(model, inputs, config, max_new_tokens)
        self.bounds = bounds

    @functools.cached_property
    def repeated(self) -> float:
        """By how much two forwards of the unpruned model differ: 0 unless a kernel is not deterministic."""
        return alike(self.look(self.inputs).outputs, self.baseline.outputs).relative

    @functools.cached_property
    def tower_noise(self) -> Difference:
        """The tower against its reference at full length in which nothing is masked."""
        if self.prompted:
            return largest(zip(self.unmasked, self.features(self.baseline), strict=True))
        full = full_outputs(self, None)
        found = alike(full.outputs, self.baseline.outputs)
        return found | between(full.last_layer, self.baseline.last_layer)

    @functools.cached_property
    def prompt_noise(self) -> Difference:
        """The whole model against the reference's features in a prompt that is padded otherwise."""
        same = same_prompt(self, self.unmasked, self.positions)
        text = full_mask(self) != 0
        return between(same[text], self.baseline.outputs["hidden states"][text])

    @functools.cached_property
    def unmasked(self) -> list[Tensor]:
        return full_features(self, None)

    @functools.cached_property
    def positions(self) -> Tensor:
        """Of the full prompt in a forward, [..., B, n]."""
        return forward_positions(self)


def alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Difference:
    """The largest Difference of tensors of one name; raises ValueError where the names differ."""
    if found.keys() != expected.keys():
        raise ValueError(f"the outputs {sorted(found)} and {sorted(expected)} differ")
    return largest((found[name], expected[name]) for name in found if found[name].is_floating_point())
