"""Towers that pack the patches of all images in one sequence: windows, merge units, video."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from ..pruning.run import Group, Run
from ..pruning.stage import Outcome, observe, prune
from ..pruning.tokens import VisionTokens, take
from .frames import members, of_parts, of_whole_images
from .layer_hooks import LayerHooks
from .tower import Tower
from .units import of_units, seqlens, whole_groups

GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}


@dataclass
class PackedLayout:
    """Where the units of a sequence are.

    A slot is the place of a unit in the unpruned sequence.
    """

    order: Tensor  # [slots] raster index of each
    slots: dict[int, Tensor] = field(default_factory=dict)  # by stage, of the units it kept, ascending
    chosen: dict[int, list[Outcome | None]] = field(default_factory=dict)  # by stage, of each group
    # by stage, what later blocks are handed; lengths also by whether a block sees the whole image
    rope: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    lengths: dict[tuple[int, bool], Tensor] = field(default_factory=dict)


class PackedTower(Tower):
    """Patches of all images packed in one sequence, by merge units of four, in the order of windows.

    Whole units leave. This attention takes no mask, so absorbed units do not weigh more than others in later
    blocks.
    """

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        return {"qkv": layer.attn.qkv}

    def attach(self) -> None:
        super().attach()
        self.handles.append(self.module.merger.register_forward_hook(self._widen))

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        grid_thw = args[1] if len(args) > 1 else kwargs["grid_thw"]
        merge = self.module.spatial_merge_size
        grids = [(t, h // merge, w // merge) for t, h, w in grid_thw.tolist()]
        if hasattr(self.module, "window_size"):  # handed on to the tower, which would compute the same
            window = ("window_index", "cu_window_seqlens")
            if any(kwargs.get(name) is None for name in window):
                sizes = (merge, self.module.window_size, self.module.patch_size)
                kwargs = {
                    **kwargs,
                    **dict(zip(window, get_vision_window_index(grid_thw, *sizes), strict=True)),
                }
            order = kwargs["window_index"].to(grid_thw.device)
        else:
            order = torch.arange(sum(map(math.prod, grids)), device=grid_thw.device)
        return Run(grids, PackedLayout(order)), kwargs

    def input_grids(self, name: str, arguments: dict) -> list[tuple[int, int, int]] | None:
        """Grids of the images or videos in an argument of the whole model, None where there are none."""
        if arguments.get(name) is None:
            return None
        grid = arguments.get(GRIDS[name])
        if grid is None:
            raise ValueError(f"{name} come without {GRIDS[name]}; pass what the processor returned")
        return [tuple(sizes) for sizes in grid.tolist()]

    def counts(self, grids: list[tuple[int, int, int]]) -> list[int]:
        return [math.prod(grid) // self.module.spatial_merge_size**2 for grid in grids]

    def project(self, content: Tensor, projector: nn.Module) -> Tensor:
        """Units [B, N, M·D] in the language model's space, [B, N, D']."""
        patches = content.unflatten(-1, (self.module.spatial_merge_size**2, -1)).flatten(0, -2)
        return self.module.merger(patches).unflatten(0, content.shape[:2])

    def prune(self, run: Run, layer: int, hidden_states: Tensor, states: dict[str, Tensor]) -> Tensor:
        replayed = run.layout.chosen.get(layer)
        units = hidden_states.unflatten(0, (-1, self.module.spatial_merge_size**2))  # [U, M, D] of windows
        groups, rows, kept, chosen = [], [], [], []
        for i, (group, place, tokens, member) in enumerate(self.views(run, layer, units, states)):
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
        back = torch.argsort(kept)  # window order again
        if replayed is None:
            run.stages[layer], run.layout.slots[layer] = groups, self.slots(run, layer)[kept[back]]
            run.layout.chosen[layer] = chosen
            run.seen = {watched: x[kept[back]] for watched, x in run.seen.items()}
        return rows[back].flatten(0, 1)

    def observe(self, run: Run, layer: int, hidden_states: Tensor, states: dict[str, Tensor]) -> None:
        units = hidden_states.unflatten(0, (-1, self.module.spatial_merge_size**2))
        seen = torch.zeros(len(units), dtype=torch.float32, device=units.device)
        for _, place, tokens, member in self.views(run, layer, units, states):
            found = observe(tokens, self.watched[layer])  # [B·parts, N]
            place = of_parts(place, len(found) // len(place), member)
            if member is not None:
                place, found = place[member >= 0], found[member >= 0]
            seen = seen.index_copy(0, place.flatten(), found.flatten())
        run.seen[layer] = seen

    def slots(self, run: Run, layer: int) -> Tensor:
        """Which unit of the unpruned sequence each one is that comes out of a layer."""
        previous, order = self.layer_hooks[layer].previous_stage, run.layout.order
        return (
            torch.arange(len(order), device=order.device) if previous is None else run.layout.slots[previous]
        )

    def views(
        self, run: Run, layer: int, units: Tensor, states: dict[str, Tensor]
    ) -> Iterator[tuple[Group, Tensor, VisionTokens, Tensor | None]]:
        """Images of one grid together: what is known of them, where their units are, and the view of these.

        Where: [B, N] places in `units` [U, M, D], -1 for padding. The view has a row for every part with a
        budget of its own; where these may differ in length, [B·parts, n] says which columns are whose.
        """
        previous = self.layer_hooks[layer].previous_stage
        order = run.layout.order.to(units.device)  # raster index by slot of the unpruned sequence
        raster = torch.argsort(order[self.slots(run, layer)])  # images one after the other, in raster order
        entered = run.stages[previous] if previous is not None else whole_groups(run.grids)
        counts = self.units_per_image(run, entered)
        for group in entered:
            starts = [sum(counts[:image]) for image in group.images]
            columns = torch.arange(max(counts[i] for i in group.images), device=raster.device)
            place = torch.tensor(starts, device=raster.device)[:, None] + columns  # [B, N]
            frames, height, width = run.grids[group.images[0]]
            parts = frames if self.config.video_budget == "frame" else 1
            grid, member = (frames // parts, height, width), None
            positions = group.positions
            if self.adaptive:
                positions = columns.expand(len(starts), -1) if positions is None else positions
                place = raster[place.where(positions >= 0, 0)].where(positions >= 0, -1)
                member = members(positions, parts, math.prod(grid))
            else:
                place = raster[place]
            group = replace(group, positions=positions)
            yield group, place, self.tokens(run, layer, units, place, group, grid, member, states), member

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
        states: dict[str, Tensor],
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
            **self.attention_states(states, len(units), place, layer),
        )

    def attention_states(
        self, states: dict[str, Tensor], num_units: int, place: Tensor, layer: int
    ) -> dict[str, Tensor]:
        """Queries, keys, values [B, H, N·M, d] of the units at `place` [B, N], rotated where it matters."""
        if "qkv" not in states:
            return {}
        heads = self.layer_hooks[layer].layer.attn.num_heads
        query, key, value = states["qkv"].unflatten(-1, (3, heads, -1)).unbind(1)  # [patches, H, d]
        if "attention" in self.needs:
            query, key = apply_rotary_pos_emb_vision(query, key, *states["position_embeddings"])

        def at_place(x: Tensor) -> Tensor:
            return x.unflatten(0, (num_units, -1))[place].flatten(1, 2).transpose(1, 2)

        wanted = {"full_query": query, "full_key": key}
        wanted |= {"full_value": value} if "value" in self.needs else {}
        return {name: at_place(x) for name, x in wanted.items()}

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        layout, stage, size = run.layout, hooks.previous_stage, self.module.spatial_merge_size**2
        slots = layout.slots[stage]
        if len(slots) == len(layout.order):
            return args, kwargs
        full = hooks.index in getattr(self.module, "fullatt_block_indexes", range(len(self.layer_hooks)))
        if stage not in layout.rope:
            layout.rope[stage] = tuple(of_units(x, slots, size) for x in kwargs["position_embeddings"])
        if (stage, full) not in layout.lengths:
            on_device = "flash" in self.module.config._attn_implementation
            layout.lengths[stage, full] = seqlens(kwargs["cu_seqlens"], slots, size, on_device)
        kwargs = {
            **kwargs,
            "position_embeddings": layout.rope[stage],
            "cu_seqlens": layout.lengths[stage, full],
        }
        if kwargs.get("max_seqlen") is not None:  # FlashAttention's: a bound is enough
            kwargs["max_seqlen"] = min(kwargs["max_seqlen"], len(slots) * size)
        return args, kwargs

    def _widen(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """The merger's rows back to one per unit, NaN where one was dropped, so that un-windowing works."""
        run = self.call.run
        slots = run.layout.slots.get(max(self.stages)) if run else None
        if slots is None or len(slots) == len(run.layout.order):
            return None
        run.overflow = output.isnan().any()
        full = output.new_full((len(run.layout.order), output.shape[-1]), float("nan"))
        return full.index_copy(0, slots.to(output.device), output)
