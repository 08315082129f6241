"""Plain towers at full length: every image a row, or all images in one; keys masked in the attention."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..stats import StageStats
from ..towers.cells import patches_of_cells
from ..towers.joined import JoinedTower
from ..towers.plain import PlainTower
from ..towers.rows import find
from ..towers.tower import Tower
from .case import before
from .full_tower import FULL, FullTower


class FullPlain(FullTower):
    """Every image a row, padding after its patches; keys are masked by the attention's own mask."""

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


FULL[PlainTower] = FullPlain
FULL[JoinedTower] = FullJoined
