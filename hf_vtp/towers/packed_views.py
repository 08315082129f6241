"""What methods see of a packed sequence: its units image by image, or frame by frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..pruning.run import Group, Run
from ..pruning.stage import Outcome, observe
from ..pruning.tokens import VisionTokens
from . import states
from .frames import members, of_parts
from .tower import Tower
from .units import PackedRow, heads, whole_groups


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


class PackedViews(Tower):
    """The half of a packed tower that shows methods the units of a sequence."""

    row: PackedRow

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        wanted = states.WANTED if "value" in self.needs else states.WANTED[:2]
        return states.projections(self.attention(layer), self.row.projections, wanted)

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
            # a method that compares frames needs them in one view
            apart = self.config.video_budget == "frame" and "clip" not in self.needs
            parts = frames if apart else 1
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
        known = {"positions": group.positions, "sizes": group.sizes, "order": group.order}
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
            **self.language(layer, images),
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
        own, later = states.own_and_next(recorded)
        views = heads(own, self.attention(hooks.layer), self.row, self.needs)
        if later:
            attention = self.attention(self.layers[layer + 1])
            views |= states.as_next(heads(later, attention, self.row, self.needs))
        return {name: x[patches].transpose(1, 2) for name, x in views.items()}
