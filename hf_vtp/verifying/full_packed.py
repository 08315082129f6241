"""A packed tower at full length, its attention worked out here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..names import parameters
from ..towers.packed import PackedTower
from ..towers.rows import find
from ..towers.units import of_two_frames, squares
from .full_tower import FULL, FullTower

OUT = "proj|out_proj|o_proj"  # what ends an attention


class FullPacked(FullTower):
    """Patches of all images in one sequence; this attention has no mask.

    Its output is worked out here, window by window or frame by frame.
    """

    def locate(self, args: tuple, kwargs: dict) -> tuple[list[Tensor], int]:
        module, row = self.tower.module, self.tower.row
        given = {**dict(zip(parameters(type(module).forward)[1:], args, strict=False)), **kwargs}
        grid, side = given["grid_thw"], getattr(module, "spatial_merge_size", None)
        if side is None:
            side = getattr(module.config, "spatial_merge_size", None) or int(given["merge_sizes"][0])
        places, start = [], 0
        for t, h, w in grid.tolist():
            rows = start + torch.arange(t * h * w, device=grid.device)
            start += t * h * w
            if row.units is squares:  # raster order of patches
                rows = rows.view(t, h // side, side, w // side, side).transpose(2, 3)
            units = rows.reshape(t, h // side, w // side, side**2)
            if row.units is of_two_frames and t > 1:
                units = units.unflatten(0, (-1, 2)).permute(0, 2, 3, 1, 4)
            places.append(units.reshape(math.prod(units.shape[:3]), -1))
        if hasattr(module, "window_size"):
            from transformers.vision_utils import get_vision_window_index

            order, _ = get_vision_window_index(grid, side, module.window_size, module.patch_size)
            slot, size = torch.argsort(order.to(grid.device)), side**2
            places = [slot[place[:, :1] // size] * size + place % size for place in places]
        if len(places) > len(self.counts) > 0:  # of the frames of a video, one by one
            places = list(torch.cat(places).split(self.counts))
        return places, start

    @property
    def counts(self) -> list[int]:
        """Units of each image that the first stage saw."""
        first = self.stages[min(self.stages)] if self.stages else None
        return [] if first is None else [len(groups) for groups in first.assignment]

    @contextmanager
    def blind(self, layer: nn.Module) -> Iterator[None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Tensor | tuple) -> Tensor | tuple:
            names = ("hidden_states", "cu_seqlens", "position_embeddings")
            given = {**dict(zip(parameters(type(module).forward)[1:], args, strict=False)), **kwargs}
            mixed = self.attention(module, *(given[name] for name in names))
            return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

        handle = find(layer, self.tower.row.attention).register_forward_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def attention(
        self, module: nn.Module, states: Tensor, cu_seqlens: Tensor, rope: tuple | Tensor
    ) -> Tensor:
        """The output of a block's attention, [rows, D], in which only living keys are seen."""
        query, key, value = self.heads(module, states)
        cos, sin = rope if isinstance(rope, tuple) else turned(rope)
        query, key = (rotate(x, cos, sin).to(value.dtype) for x in (query, key))
        mixed, alive = torch.zeros_like(value), self.alive.to(states.device)
        ends = cu_seqlens.tolist()
        for start, stop in zip(ends, ends[1:], strict=False):
            seen = alive[start:stop]
            if not seen.any():
                continue  # all were dropped: whatever they become is read by nobody
            # the living keys alone are what a mask would leave of all, without a mask of L × L numbers
            q, k, v = query[start:stop], key[start:stop][seen], value[start:stop][seen]
            q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))  # [1, H, L or living, d]
            mixed[start:stop] = scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
        return find(module, OUT)(mixed.flatten(1))

    def heads(self, module: nn.Module, states: Tensor) -> list[Tensor]:
        """Queries, keys and values of an attention, [rows, H, d] each."""
        row, parts = self.tower.row, []
        for name in row.projections.split():
            parts += getattr(module, name)(states).chunk(3 if name == "qkv" else 1, dim=-1)
        parts = [x.unflatten(-1, (module.num_heads, -1)) for x in parts]
        norms = [getattr(module, name) for name in row.norms.split()]
        return [norm(x) for norm, x in zip(norms, parts, strict=False)] + parts[len(norms) :]


def turned(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [rows, d] of rotary angles [rows, d / 2]."""
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x` [rows, H, d] turned by its rotary positions, in float32."""
    x, cos, sin = x.float(), cos.float().unsqueeze(1), sin.float().unsqueeze(1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


FULL[PackedTower] = FullPacked
