"""Towers that pack the patches of all images in one sequence: windows, merge units, video, DeepStack."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from ..pruning.run import Group, Run
from ..pruning.stage import Outcome, observe, prune
from ..pruning.tokens import VisionTokens, take
from . import states
from .frames import members, of_parts, of_whole_images
from .layer_hooks import LayerHooks
from .rows import Grid, find
from .tower import Tower
from .units import PackedRow, heads, seqlens, whole_groups
from .widen import Widen

GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}


@dataclass
class PackedLayout:
    """Where the units of a sequence are: those of all images one after the other, each in raster order."""

    rows: Tensor  # [U, M] rows of the unpruned sequence that hold each
    kept: dict[int, Tensor] = field(default_factory=dict)  # by stage, the units it kept, ascending
    kept_rows: dict[int, Tensor] = field(default_factory=dict)  # by stage, the rows of these, ascending
    chosen: dict[int, list[Outcome | None]] = field(default_factory=dict)  # by stage, of each group
    # by stage, what later blocks are handed; lengths also by whether a block sees the whole image
    rope: dict[int, Tensor | tuple[Tensor, ...]] = field(default_factory=dict)
    lengths: dict[tuple[int, bool], Tensor] = field(default_factory=dict)

    def patches(self, stage: int | None) -> Tensor:
        """Rows of the sequence after a stage that hold each unit there, [U', M]."""
        if stage is None:
            return self.rows
        return torch.searchsorted(self.kept_rows[stage], self.rows[self.kept[stage]])


class PackedTower(Tower):
    """Patches of all images packed in one sequence; whole units of its merger leave.

    This attention takes no mask, so absorbed units do not weigh more than others in later blocks.
    """

    row: PackedRow

    def attention(self, layer: nn.Module) -> nn.Module:
        """A block's attention."""
        return find(layer, self.row.attention)

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        wanted = states.WANTED if "value" in self.needs else states.WANTED[:2]
        return states.projections(self.attention(layer), self.row.projections, wanted)

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
                outcome = prune(tokens, self.config, replayed[i] if replayed else None)
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
            groups.append(Group(group.images, positions, whole.sizes, whole))
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

    def units(self, run: Run, previous: int | None, hidden_states: Tensor) -> Tensor:
        """The units after a stage, [U, M, D], of its sequence."""
        return hidden_states[run.layout.patches(previous).to(hidden_states.device)]

    def observe(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> None:
        units = self.units(run, self.layer_hooks[layer].previous_stage, hidden_states)
        seen = torch.zeros(len(units), dtype=torch.float32, device=units.device)
        for _, place, tokens, member in self.views(run, layer, units, recorded):
            found = observe(tokens, self.watched[layer])  # [B·parts, N]
            place = of_parts(place, len(found) // len(place), member)
            if member is not None:
                place, found = place[member >= 0], found[member >= 0]
            seen = seen.index_copy(0, place.flatten(), found.flatten())
        run.seen[layer] = seen

    def views(
        self, run: Run, layer: int, units: Tensor, recorded: dict[str, Tensor]
    ) -> Iterator[tuple[Group, Tensor, VisionTokens, Tensor | None]]:
        """Images of one grid together: what is known of them, where their units are, and the view of these.

        Where: [B, N] places in `units` [U, M, D], -1 for padding. The view has a row for every part with a
        budget of its own; where these may differ in length, [B·parts, n] says which columns are whose.
        """
        previous = self.layer_hooks[layer].previous_stage
        entered = run.stages[previous] if previous is not None else whole_groups(run.grids)
        counts = self.units_per_image(run, entered)
        for group in entered:
            starts = [sum(counts[:image]) for image in group.images]
            columns = torch.arange(max(counts[i] for i in group.images), device=units.device)
            place = torch.tensor(starts, device=units.device)[:, None] + columns  # [B, N]
            frames, height, width = run.grids[group.images[0]]
            parts = frames if self.config.video_budget == "frame" else 1
            grid, member = (frames // parts, height, width), None
            positions = group.positions
            if self.adaptive:
                positions = columns.expand(len(starts), -1) if positions is None else positions
                place = place.where(positions >= 0, -1)
                member = members(positions, parts, math.prod(grid))
            group = replace(group, positions=positions)
            yield group, place, self.tokens(run, layer, units, place, group, grid, member, recorded), member

    def units_per_image(self, run: Run, groups: list[Group]) -> list[int]:
        """Units of every image, in the order they were given."""
        counts = [0] * len(run.grids)
        for group in groups:
            for image, n in zip(group.images, self.units_in(run, group), strict=True):
                counts[image] = n
        return counts

    def units_in(self, run: Run, group: Group) -> list[int]:
        """Units of each image of a group."""
        if group.positions is None:
            return [math.prod(run.grids[image]) for image in group.images]
        if self.adaptive:
            return (group.positions >= 0).sum(dim=1).tolist()
        return [group.positions.shape[1]] * len(group.images)

    def tokens(
        self,
        run: Run,
        layer: int,
        units: Tensor,
        place: Tensor,
        group: Group,
        grid: tuple[int, int, int],
        member: Tensor | None,
        recorded: dict[str, Tensor],
    ) -> VisionTokens:
        """The view of a group's units at `place` [B, N]: a row for each part of the size `grid`."""
        size = math.prod(grid)
        parts = math.prod(run.grids[group.images[0]]) // size
        known = {"positions": group.positions, "sizes": group.sizes}
        known = {name: None if x is None else of_parts(x, parts, member) for name, x in known.items()}
        if known["positions"] is not None:
            known["positions"] = known["positions"] % size
        place, valid = of_parts(place, parts, member), None
        if member is not None:
            valid = member >= 0
            known = {name: None if x is None else x.where(valid, 0) for name, x in known.items()}
            place = place.where(valid, 0)
        images = [image for image in group.images for _ in range(parts)]
        amounts = self.amounts(layer, size) if layer in self.stages else {"num_keep": place.shape[1]}
        patches = units[place]  # [B·parts, N, M, D]
        return VisionTokens(
            hidden_states=patches.float().mean(dim=2),
            patches=patches,
            grid=grid,
            valid=valid,
            layer=layer,
            seen={watched: x[place] for watched, x in run.seen.items()},
            **known,
            **amounts,
            **({} if self.call.text is None else self.call.text.of(images)),
            **self.attention_states(run, recorded, place, layer),
        )

    def attention_states(
        self, run: Run, recorded: dict[str, Tensor], place: Tensor, layer: int
    ) -> dict[str, Tensor]:
        """Queries, keys, values [B, H, N·M, d] of the units at `place` [B, N], rotated where it matters."""
        if not recorded.keys() - {"position_embeddings"}:
            return {}
        hooks = self.layer_hooks[layer]
        patches = run.layout.patches(hooks.previous_stage).to(place.device)[place].flatten(1)  # [B, N·M]
        views = heads(recorded, self.attention(hooks.layer), self.row, self.needs)
        return {name: x[patches].transpose(1, 2) for name, x in views.items()}

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
