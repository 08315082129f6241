"""The vision tower at full length, which must give what the pruned one gives.

The layers are the model's own. Behind a stage each token that was dropped is masked as a key, and each that
was kept holds what the merger made of it; or, where groups weigh by their size, every member of a group stays
and holds the group's mean.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..stats import StageStats
from ..towers.cells import patches_of_cells
from ..towers.joined import JoinedTower
from ..towers.packed import PackedTower
from ..towers.plain import PlainTower
from ..towers.rows import find
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


class FullPlain(FullTower):
    """Every image a row, padding behind its patches; keys are masked by the attention's own mask."""

    takes_weights = True

    @classmethod
    def has_members(cls, tower: Tower) -> bool:
        # not where they would be rotated by places of their own: the group has one place
        return "position_embeddings" not in signature(type(tower.layers[0]).forward).parameters

    def locate(self, args: tuple, kwargs: dict) -> tuple[list[Tensor], int]:
        given = signature(type(self.tower.module).forward).bind(None, *args, **kwargs).arguments
        pixels, shapes = given["pixel_values"], given.get("spatial_shapes")
        if given.get("patch_attention_mask") is not None:  # a group is padding where its representative is
            self.replicates = False
        prefix = self.tower.num_prefix_tokens
        if shapes is None:
            patch = self.tower.module.config.patch_size
            height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
            n = (pixels.shape[-2] // height) * (pixels.shape[-1] // width)
            counts = [n] * len(pixels)
        else:
            n, counts = pixels.shape[1], shapes.prod(dim=-1).tolist()
        self.length = prefix + n
        tokens = torch.arange(prefix, self.length, device=pixels.device)[:, None]
        places = [tokens[:count] + b * self.length for b, count in enumerate(counts)]
        if self.tower.cells.side > 1:
            grids = [self.tower.cells.grid(grid) for grid in self.tower.row.grids(self.tower.module, given)]
            tables = [patches_of_cells(rows, columns, self.tower.cells.side) for _, rows, columns in grids]
            places = [own[:, 0][table.to(own.device)] for own, table in zip(places, tables, strict=True)]
        return places, len(pixels) * self.length

    def remaining(self, stage: StageStats) -> Tensor:
        found = []
        for b, (place, keep) in enumerate(zip(self.places, stage.keep_indices, strict=True)):
            prefix = torch.arange(self.tower.num_prefix_tokens, device=place.device) + b * self.length
            found += [prefix, place[keep.to(place.device)].flatten()]
        return torch.cat(found)

    @contextmanager
    def installed(self) -> Iterator[None]:
        head = find(self.tower.module, self.tower.row.head) if self.tower.row.head else None
        with ExitStack() as stack:
            stack.enter_context(super().installed())
            if head is not None:
                stack.callback(head.register_forward_hook(self._pool).remove)
            yield

    def _pool(self, head: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """What the head makes of each image's living tokens, without any padding or mask."""
        alive = torch.zeros_like(self.alive)
        alive[torch.cat(self.places).flatten().to(alive.device)] = True  # not padding
        alive = (alive & self.alive).view(-1, self.length).to(args[0].device)
        return torch.cat([head.forward(x[own][None]) for x, own in zip(args[0], alive, strict=True)])

    @contextmanager
    def blind(self, layer: nn.Module) -> Iterator[None]:
        attention = find(layer, self.tower.row.attention)
        takes = signature(type(attention).forward)
        with ExitStack() as stack:
            stack.enter_context(taking_masks(attention))
            if "attention_mask" in takes.parameters:

                def mask(module: nn.Module, args: tuple, kwargs: dict):
                    call = takes.bind(module, *args, **kwargs)
                    call.arguments["attention_mask"] = self._mask(
                        next(iter(call.args[1:])), call.arguments.get("attention_mask")
                    )
                    return call.args[1:], call.kwargs

                stack.enter_context(before(attention, mask))
            else:
                stack.callback(attention.register_forward_hook(self._attended).remove)
            yield

    def _mask(self, states: Tensor, given: Tensor | None) -> Tensor:
        """Added to the logits, [B, 1, L, L]: the least there is for what was dropped or is masked already."""
        dead = ~self.alive.to(states.device).view(-1, 1, 1, self.length)
        if given is not None:
            dead = dead | (~given if given.dtype == torch.bool else given < 0)
        weight = self.weight.to(states).view(-1, 1, 1, self.length).expand_as(dead)
        mask = weight.masked_fill(dead, torch.finfo(states.dtype).min)
        return mask.expand(-1, -1, self.length, -1)

    def _attended(self, module: nn.Module, args: tuple, output: tuple) -> tuple:
        """The output of an attention that takes no mask, with one."""
        names, heads = self.tower.row.projections.split(), module.num_attention_heads
        query, key, value = (
            find(module, name)(args[0]).unflatten(-1, (heads, -1)).transpose(1, 2) for name in names
        )
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=self._mask(args[0], None))
        return (mixed.transpose(1, 2).flatten(2), *output[1:])


class FullJoined(FullPlain):
    """All images in one row, whose own mask keeps them apart."""

    def locate(self, args: tuple, kwargs: dict) -> tuple[list[Tensor], int]:
        given = signature(type(self.tower.module).forward).bind(None, *args, **kwargs).arguments
        device, places, start = given["pixel_values"].device, [], 0
        for grid in self.tower.row.grids(self.tower.module, given):
            _, rows, columns = self.tower.cells.grid(grid)
            table = patches_of_cells(rows, columns, self.tower.cells.side).to(device)
            places.append(table + start)
            start += table.numel()
        self.length = start
        return places, start


@contextmanager
def taking_masks(attention: nn.Module) -> Iterator[None]:
    """An attention that takes masks of floats inside a `with` block; the flash kernels take none."""
    native = attention.config
    if native._attn_implementation not in ("eager", "sdpa"):
        attention.config = copy.copy(native)
        attention.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        attention.config = native


class FullPacked(FullTower):
    """Patches of all images in one sequence, in the order of windows; this attention has no mask.

    Its output is worked out here, window by window or frame by frame.
    """

    def locate(self, args: tuple, kwargs: dict) -> tuple[list[Tensor], int]:
        grid = args[1] if len(args) > 1 else kwargs["grid_thw"]
        module = self.tower.module
        merge = module.spatial_merge_size
        counts = (grid.prod(dim=-1) // merge**2).tolist()
        slot = torch.arange(sum(counts), device=grid.device)  # of each unit in raster order
        if hasattr(module, "window_size"):
            from transformers.vision_utils import get_vision_window_index

            order, _ = get_vision_window_index(grid, merge, module.window_size, module.patch_size)
            slot = torch.argsort(order.to(grid.device))
        rows = slot[:, None] * merge**2 + torch.arange(merge**2, device=grid.device)  # [units, M]
        return list(rows.split(counts)), rows.numel()

    @contextmanager
    def blind(self, layer: nn.Module) -> Iterator[None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
            names = ("hidden_states", "cu_seqlens", "position_embeddings")
            told = {**dict(zip(names, args, strict=False)), **kwargs}
            return self.attention(module, *(told[name] for name in names))

        handle = layer.attn.register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def attention(self, module: nn.Module, states: Tensor, cu_seqlens: Tensor, rope: tuple) -> Tensor:
        """The output of a block's attention, [rows, D], in which only living keys are seen."""
        heads = module.num_heads
        query, key, value = module.qkv(states).unflatten(-1, (3, heads, -1)).unbind(1)  # [rows, H, d]
        query, key = (rotate(x, *rope).to(value.dtype) for x in (query, key))
        mixed, alive = torch.zeros_like(value), self.alive.to(states.device)
        ends = cu_seqlens.tolist()
        for start, stop in zip(ends, ends[1:], strict=False):
            seen = alive[start:stop]
            if not seen.any():
                continue  # all of them left: whatever they become is read by nobody
            # the living keys alone are what a mask would leave of all, without a mask of L × L numbers
            q, k, v = query[start:stop], key[start:stop][seen], value[start:stop][seen]
            q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # [1, H, L or living, d]
            mixed[start:stop] = scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
        return module.proj(mixed.flatten(1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [rows, H, d] turned by its rotary positions, in float32."""
    x, cos, sin = x.float(), cos.float().unsqueeze(1), sin.float().unsqueeze(1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


FULL: dict[type[Tower], type[FullTower]] = {
    JoinedTower: FullJoined,
    PlainTower: FullPlain,
    PackedTower: FullPacked,
}


def full_tower(tower: Tower) -> type[FullTower] | None:
    """The reference for a tower, None where there is none."""
    return next((FULL[kind] for kind in type(tower).__mro__ if kind in FULL), None)
