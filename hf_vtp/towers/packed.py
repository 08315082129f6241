"""Towers that pack the patches of all images in one sequence: windows, merge units, video, DeepStack."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from ..pruning.run import Group, Run
from ..pruning.stage import prune
from ..pruning.tokens import take
from . import states
from .frames import of_whole_images
from .layer_hooks import LayerHooks
from .packed_views import PackedLayout, PackedViews
from .rows import Grid
from .units import seqlens
from .widen import Widen

GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}


class PackedTower(PackedViews):
    """Patches of all images packed in one sequence; whole units of its merger leave.

    This attention takes no mask, so absorbed units do not weigh more than others in later blocks.
    """

    def attach(self) -> None:
        super().attach()
        self.handles += Widen(self).attach()

    def restore(self, projector: nn.Module) -> list:
        """Hooks that mark in a projector's output the rows of units that were dropped."""
        return [projector.register_forward_hook(Widen(self).mark)]

    def expect(self, name: str, arguments: dict) -> None:
        self.call.grids = self.input_grids(name, arguments)

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        arguments = states.arguments(self.module, args, kwargs)
        grid_thw = arguments["grid_thw"]
        if hasattr(self.module, "window_size"):  # handed on to the tower, which would compute the same
            window = ("window_index", "cu_window_seqlens")
            if any(kwargs.get(name) is None for name in window):
                module = self.module
                sizes = (module.spatial_merge_size, module.window_size, module.patch_size)
                found = get_vision_window_index(grid_thw, *sizes)
                kwargs = {**kwargs, **dict(zip(window, found, strict=True))}
            arguments = {**arguments, **kwargs}
        grids, whole = [tuple(sizes) for sizes in grid_thw.tolist()], self.call.grids
        self.call.grids = None
        frames = [(1, h, w) for t, h, w in whole or () for _ in range(t)]
        if whole and grids == frames:  # some families hand their tower the frames of a video one by one
            grids = whole
        grids, rows = self.row.units(self.module, arguments, grids)
        return Run(grids, PackedLayout(rows.to(grid_thw.device))), kwargs

    def input_grids(self, name: str, arguments: dict) -> list[tuple[int, int, int]] | None:
        """Grids of the images or videos in an argument of the whole model, None where there are none."""
        if arguments.get(name) is None:
            return None
        grid = arguments.get(GRIDS[name])
        if grid is None:
            raise ValueError(f"{name} come without {GRIDS[name]}; pass what the processor returned")
        return [tuple(sizes) for sizes in grid.tolist()]

    def counts(self, grids: list[Grid]) -> list[int]:
        return [math.prod(grid) // self.module.spatial_merge_size**2 for grid in grids]

    def project(self, content: Tensor, projector: nn.Module) -> Tensor:
        """Units [B, N, M·D] in the language model's space, [B, N, D']."""
        patches = content.unflatten(-1, (self.module.spatial_merge_size**2, -1)).flatten(0, -2)
        return self.row.project(self.module, patches).unflatten(0, content.shape[:2])

    def prune(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> Tensor:
        layout, previous = run.layout, self.layer_hooks[layer].previous_stage
        replayed = layout.chosen.get(layer)
        units = self.units(run, previous, hidden_states)  # [U, M, D]
        groups, rows, kept, chosen = [], [], [], []
        for i, (group, place, tokens, member) in enumerate(self.views(run, layer, units, recorded)):
            outcome = None
            if not self.leaves_all(layer, tokens.shape[1], tokens.num_keep):
                outcome = prune(tokens, self.configs[layer], replayed[i] if replayed else None)
            chosen.append(outcome)
            if outcome is None:
                rows.append(units[place[place >= 0]] if self.adaptive else units[place].flatten(0, 1))
                kept.append(place[place >= 0] if self.adaptive else place.flatten())
                groups.append(replace(group, outcome=None))
                continue
            states_kept = outcome.hidden_states.unflatten(-1, units.shape[1:])  # [B·parts, K, M, D]
            outcome.hidden_states = None
            rows.append(states_kept[outcome.keep >= 0] if self.adaptive else states_kept.flatten(0, 1))
            whole = of_whole_images(outcome, len(tokens.hidden_states) // len(place), member, place.shape[1])
            index = whole.keep.clamp(min=0)
            positions = index if group.positions is None else take(group.positions, index)
            places = take(place, index)
            if self.adaptive:
                positions, places = positions.where(whole.keep >= 0, -1), places[whole.keep >= 0]
            kept.append(places.flatten())
            groups.append(Group(group.images, positions, whole.sizes, whole, whole.order))
        kept, rows = torch.cat(kept), torch.cat(rows)
        there = layout.rows.to(kept.device)  # of all units
        there = there if previous is None else there[layout.kept[previous]]
        patches, order = torch.sort(there[kept].flatten())  # as they stand in the sequence
        if replayed is None:
            kept, ids = torch.sort(kept)[0], torch.arange(len(layout.rows), device=kept.device)
            run.stages[layer], layout.chosen[layer] = groups, chosen
            layout.kept[layer] = (ids if previous is None else layout.kept[previous])[kept]
            layout.kept_rows[layer] = patches
            run.seen = {watched: x[kept] for watched, x in run.seen.items()}
        return rows.flatten(0, 1)[order]

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        layout, stage = run.layout, hooks.previous_stage
        rows = layout.kept_rows[stage]
        if len(rows) == layout.rows.numel():
            return args, kwargs
        full = hooks.index in getattr(self.module, "fullatt_block_indexes", range(len(self.layer_hooks)))
        if stage not in layout.rope:
            rope = kwargs["position_embeddings"]
            several = isinstance(rope, tuple)
            layout.rope[stage] = tuple(x[rows] for x in rope) if several else rope[rows]
        if (stage, full) not in layout.lengths:
            on_device = "flash" in self.module.config._attn_implementation
            layout.lengths[stage, full] = seqlens(kwargs["cu_seqlens"], rows, on_device)
        kwargs = {
            **kwargs,
            "position_embeddings": layout.rope[stage],
            "cu_seqlens": layout.lengths[stage, full],
        }
        if kwargs.get("max_seqlen") is not None:  # FlashAttention's: a bound is enough
            kwargs["max_seqlen"] = min(kwargs["max_seqlen"], len(rows))
        return args, kwargs
