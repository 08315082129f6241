"""The vision tower at full length, which must give what the pruned one gives.

The layers are the model's own. Behind a stage each token that was dropped is masked as a key, and each that
was kept holds what the merger made of it; or, where groups weigh by their size, every member of a group stays
and holds the group's mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from ..stats import StageStats
from ..towers.tower import Tower
from .case import before


class FullTower:
    """The hooks of one run over some images of a tower that is not pruned.

    `stages` are the statistics of the pruned run over the same images. A family says where an image's tokens
    lie in the sequence and how a layer is kept from seeing some of them.
    """

    takes_weights = False  # whether the size of a group weighs in later attention

    def __init__(self, tower: Tower, stages: list[StageStats], weighs: bool, contents: dict[int, Tensor]):
        self.tower, self.weighs, self.contents = tower, weighs, contents
        self.replicates = weighs and self.has_members(tower)
        self.stages = {stage.layer: stage for stage in stages}
        self.previous: StageStats | None = None
        self.places: list[Tensor] = []  # rows of the sequence that hold each token of each image, [N, M]
        self.members: list[Tensor] = []  # of each image, the group that each of its tokens is in now, [N]
        self.alive: Tensor | None = None  # bool [rows of the sequence]
        self.weight: Tensor | None = None  # log(size) of what each row stands for, [rows of the sequence]

    @classmethod
    def has_members(cls, tower: Tower) -> bool:
        """Whether every member of a group can stay, with the group's mean, in place of a weight."""
        return cls.takes_weights

    def locate(self, args: tuple, kwargs: dict) -> tuple[list[Tensor], int]:
        """`places` for the arguments of the tower's forward, and the rows of the whole sequence."""
        raise NotImplementedError(f"{type(self).__name__} must say where tokens lie")

    def blind(self, layer: nn.Module) -> Iterator:
        """A context in which the layer sees living keys only."""
        raise NotImplementedError(f"{type(self).__name__} must mask keys")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The hooks inside a `with` block."""
        with ExitStack() as stack:
            stack.enter_context(before(self.tower.module, self._begin))
            for i, layer in enumerate(self.tower.layers):
                stack.enter_context(self.blind(layer))
                if i in self.stages:  # prepended: Transformers' output capture must see what it makes
                    hook = layer.register_forward_hook(self._stage(i), prepend=True)
                    stack.callback(hook.remove)
            yield

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.places, length = self.locate(args, kwargs)
        device = self.places[0].device
        self.members = [torch.arange(len(place), device=device) for place in self.places]
        self.alive = torch.ones(length, dtype=torch.bool, device=device)
        self.weight = torch.zeros(length, device=device)
        self.previous = None

    def _stage(self, i: int) -> Callable:
        def hook(module: nn.Module, args: tuple, output):
            states = output[0] if isinstance(output, tuple) else output
            changed = self._after_stage(self.stages[i], states.flatten(0, -2)).view_as(states)
            self.previous = self.stages[i]
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def _after_stage(self, stage: StageStats, states: Tensor) -> Tensor:
        """`states` [rows, D] with what the stage makes of them."""
        states = states.clone()
        for image, place in enumerate(self.places):
            place = place.to(states.device)
            keep, groups = (x[image].to(states.device) for x in (stage.keep_indices, stage.assignment))
            if self.replicates:
                self.members[image] = member = groups[self.members[image].to(groups.device)]
                if stage.layer not in self.contents:
                    means = mean_of(states[place], member, torch.ones_like(member), len(keep))
                    states[place] = means[member]  # everything joined a group
            elif self.weighs:
                entered, sizes = place, torch.ones_like(groups)
                if self.previous is not None:
                    entered = place[self.previous.keep_indices[image].to(place.device)]
                    sizes = self.previous.sizes[image].to(place.device)
                states[place[keep]] = mean_of(states[entered], groups, sizes, len(keep))
                own = stage.sizes[image].log().to(self.weight)
                self.weight[place[keep].to(own.device)] = own.unsqueeze(1)
            if not self.replicates:
                dropped = torch.ones(len(place), dtype=torch.bool, device=place.device)
                dropped[keep] = False
                self.alive[place[dropped].to(self.alive.device)] = False
        if stage.layer in self.contents:
            states[self.remaining(stage).to(states.device)] = self.contents[stage.layer]
            for image, place in enumerate(self.places if self.replicates else ()):
                kept = states[place[stage.keep_indices[image].to(place.device)].to(states.device)]
                states[place] = kept[self.members[image]]
        return states

    def remaining(self, stage: StageStats) -> Tensor:
        """Rows of the sequence that a stage kept, in the order in which its output has them."""
        return self.alive


def mean_of(x: Tensor, groups: Tensor, weights: Tensor, count: int) -> Tensor:
    """Weighted means of `count` groups: x [N, M, D] and groups [N] to [count, M, D]; -1 is in no group."""
    dtype, shape = x.dtype, x.shape[1:]
    x, inside = x.float().flatten(1), groups >= 0
    groups, weights = groups[inside], weights[inside].float()
    total = torch.zeros(count, x.shape[1], device=x.device).index_add(0, groups, x[inside] * weights[:, None])
    size = torch.zeros(count, device=x.device).index_add(0, groups, weights)
    return (total / size[:, None]).to(dtype).view(count, *shape)


FULL: dict[type[Tower], type[FullTower]] = {}  # the modules of full towers add theirs


def full_tower(tower: Tower) -> type[FullTower] | None:
    """The reference for a tower, None where there is none."""
    from . import full_packed, full_plain  # noqa: F401

    return next((FULL[kind] for kind in type(tower).__mro__ if kind in FULL), None)
