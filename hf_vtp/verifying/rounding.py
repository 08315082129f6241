"""What rounding alone makes of this model, measured on unpruned computations that are otherwise equal."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..differences import Bounds, Difference, between, largest
from .case import Case, after
from .full_prompt import compared, forward_positions, same_prompt
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
        """The tower against the reference for it with nothing masked and every layer rounded otherwise."""
        if self.prompted:
            return largest(zip(self.unmasked, self.features(self.baseline), strict=True))
        with rounded_otherwise(self.tower_layers, self.bounds.unit):
            full = full_outputs(self, None)
        found = alike(full.outputs, self.baseline.outputs)
        return found | between(full.last_layer, self.baseline.last_layer)

    @functools.cached_property
    def prompt_noise(self) -> Difference:
        """The whole model against itself with other padding and every layer rounded otherwise."""
        with rounded_otherwise(getattr(self.adapter.language, "layers", ()), self.bounds.unit):
            same = same_prompt(self, self.unmasked, self.positions)
        text = compared(self)
        return between(same[text], self.baseline.outputs["hidden states"][text])

    @functools.cached_property
    def unmasked(self) -> list[Tensor]:
        with rounded_otherwise(self.tower_layers, self.bounds.unit):
            return full_features(self, None)

    @property
    def tower_layers(self) -> nn.ModuleList:
        return self.tower.layers

    @functools.cached_property
    def positions(self) -> Tensor:
        """Of the full prompt in a forward, [..., B, n]."""
        return forward_positions(self)


@contextmanager
def rounded_otherwise(layers: nn.ModuleList | tuple, unit: float) -> Iterator[None]:
    """Each number that a layer gives moved by the share `unit`, up or down, in a `with` block.

    As large as the error that each rounding makes; where tokens leave, sums run in another order, and that
    much changes as well.
    """

    def hook(module: nn.Module, args: tuple, output):
        states = output[0] if isinstance(output, tuple) else output
        numbers = torch.Generator(states.device).manual_seed(0)
        signs = torch.randint(2, states.shape, generator=numbers, device=states.device) * 2 - 1
        moved = (states.double() if states.dtype == torch.float64 else states.float()) * (1 + unit * signs)
        moved = moved.to(states.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(after(layer, hook))
        yield


def alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> Difference:
    """The largest Difference of tensors of one name; raises ValueError where the names differ."""
    if found.keys() != expected.keys():
        raise ValueError(f"the outputs {sorted(found)} and {sorted(expected)} differ")
    return largest((found[name], expected[name]) for name in found if found[name].is_floating_point())
