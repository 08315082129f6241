"""The tower of Qwen2.5-VL and Qwen2-VL: packed patches, windows, 2×2 merge units, video."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from ..pruner import Outcome, prune
from ..run import Group, Run
from ..tokens import VisionTokens, num_keep
from ..tower import LayerHooks, Tower
from .base import register_tower


@register_tower("qwen2_5_vl_vision", "qwen2_vl_vision")
class QwenTower(Tower):
    """Patches of all images packed in one sequence, by merge units of four, in the order of windows.

    Whole units leave. A run's layout holds `slots`: which unit of the unpruned sequence each one left was, in
    its order, and `order`: the raster index of each of those slots. This attention takes no mask, so absorbed
    units do not weigh more than others in later blocks.
    """

    num_prefix_tokens = 0

    @classmethod
    def layers(cls, module: nn.Module) -> nn.ModuleList:
        return module.blocks

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        return {"qkv": layer.attn.qkv}

    def attach(self) -> None:
        super().attach()
        self.handles.append(self.module.merger.register_forward_hook(self._widen))

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        grid_thw = args[1] if len(args) > 1 else kwargs["grid_thw"]
        merge = self.module.spatial_merge_size
        run = Run([(t, h // merge, w // merge) for t, h, w in grid_thw.tolist()])
        if hasattr(self.module, "window_size"):  # handed on to the tower, which would compute the same
            window = ("window_index", "cu_window_seqlens")
            if any(kwargs.get(name) is None for name in window):
                sizes = (merge, self.module.window_size, self.module.patch_size)
                kwargs = {
                    **kwargs,
                    **dict(zip(window, get_vision_window_index(grid_thw, *sizes), strict=True)),
                }
            run.layout["order"] = kwargs["window_index"].to(grid_thw.device)
        else:
            run.layout["order"] = torch.arange(sum(map(math.prod, run.grids)), device=grid_thw.device)
        return run, kwargs

    def prune(self, run: Run, layer: int, hidden_states: Tensor, states: dict[str, Tensor]) -> Tensor:
        behind = self.layer_hooks[layer].behind
        order = run.layout["order"].to(hidden_states.device)  # raster index by slot of the unpruned sequence
        slots = torch.arange(len(order), device=order.device) if behind is None else run.layout[behind]
        units = hidden_states.view(len(slots), -1, hidden_states.shape[-1])  # [U, M, D] in window order
        raster = torch.argsort(order[slots])  # images one after the other, each in raster order
        entered = run.stages[behind] if behind is not None else whole_groups(run.grids)
        replayed = run.layout.get((layer, "chosen"))
        groups, rows, kept, chosen = [], [], [], []
        for i, group in enumerate(entered):
            place = raster[
                self.places(run, entered, group, raster.device)
            ]  # [B, N] units of the group's images
            frames, height, width = run.grids[group.images[0]]
            parts = frames if self.config.video_budget == "frame" else 1  # of an image, each with a budget
            grid = (frames // parts, height, width)
            outcome = None
            tokens = self.tokens(units, place, grid, parts, group, layer, states)
            if tokens.num_keep < tokens.shape[1]:
                outcome = prune(tokens, self.config, replayed[i] if replayed else None)
            chosen.append(outcome)
            if outcome is None:
                rows.append(units[place].flatten(0, 1))
                kept.append(place.flatten())
                groups.append(Group(group.images, group.positions, group.sizes, None))
                continue
            rows.append(outcome.hidden_states.reshape(-1, *units.shape[1:]))
            outcome.hidden_states = None
            whole = of_whole_images(outcome, parts, tokens.shape[1])
            kept.append(place.gather(1, whole.keep).flatten())
            positions = whole.keep if group.positions is None else group.positions.gather(1, whole.keep)
            groups.append(Group(group.images, positions, whole.sizes, whole))
        kept, rows = torch.cat(kept), torch.cat(rows)
        back = torch.argsort(kept)  # window order again
        if replayed is None:
            run.stages[layer], run.layout[layer] = groups, slots[kept[back]]
            run.layout[layer, "chosen"] = chosen
        return rows[back].flatten(0, 1)

    def tokens(
        self,
        units: Tensor,
        place: Tensor,
        grid: tuple[int, int, int],
        parts: int,
        group: Group,
        layer: int,
        states: dict[str, Tensor],
    ) -> VisionTokens:
        """The view of a group's units at `place` [B, N], each image in so many parts: [B·parts, N/parts]."""
        patches = units[place.unflatten(1, (parts, -1)).flatten(0, 1)]  # [B, N, M, D]
        of_part = lambda x: None if x is None else x.unflatten(1, (parts, -1)).flatten(0, 1)  # noqa: E731
        positions = of_part(group.positions)
        return VisionTokens(
            hidden_states=patches.float().mean(dim=2),
            patches=patches,
            num_keep=num_keep(
                math.prod(grid), self.stages[layer], self.config.min_keep, self.config.max_keep
            ),
            grid=grid,
            positions=None if positions is None else positions % math.prod(grid),
            sizes=of_part(group.sizes),
            layer=layer,
            **self.queries_and_keys(states, len(units), place, parts, layer),
        )

    def queries_and_keys(
        self, states: dict[str, Tensor], num_units: int, place: Tensor, parts: int, layer: int
    ) -> dict[str, Tensor]:
        """Queries and keys [B·parts, H, N/parts·M, d] of the units at `place`, rotated where it matters."""
        if "qkv" not in states:
            return {}
        heads = self.layer_hooks[layer].layer.attn.num_heads
        packed = states["qkv"].unflatten(-1, (3, heads, -1))  # [patches, 3, H, d]
        query, key = packed[:, 0], packed[:, 1]
        if "attention" in self.needs:
            query, key = apply_rotary_pos_emb_vision(query, key, *states["position_embeddings"])

        def of_units(x: Tensor) -> Tensor:
            x = x.unflatten(0, (num_units, -1))[place]  # [B, N, M, H, d]
            return x.unflatten(1, (parts, -1)).flatten(0, 1).flatten(1, 2).transpose(1, 2)

        return {"full_query": of_units(query), "full_key": of_units(key)}

    def places(self, run: Run, entered: list[Group], group: Group, device: torch.device) -> Tensor:
        """[B, N] places of a group's units in the raster order of all images."""
        counts = [0] * len(run.grids)
        for other in entered:
            for image in other.images:
                counts[image] = self.count(run, other)
        starts = [sum(counts[:image]) for image in group.images]
        return torch.tensor(starts, device=device)[:, None] + torch.arange(
            counts[group.images[0]], device=device
        )

    def count(self, run: Run, group: Group) -> int:
        """Units of each image of a group."""
        return math.prod(run.grids[group.images[0]]) if group.positions is None else group.positions.shape[1]

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        slots = run.layout[hooks.behind]
        if len(slots) == len(run.layout["order"]):
            return args, kwargs
        full = hooks.index in getattr(self.module, "fullatt_block_indexes", range(len(self.layer_hooks)))
        rope, lengths = (hooks.behind, "rope"), (hooks.behind, full)
        if rope not in run.layout:
            run.layout[rope] = tuple(self.of_units(x, slots) for x in kwargs["position_embeddings"])
        if lengths not in run.layout:
            run.layout[lengths] = self.seqlens(kwargs["cu_seqlens"], slots)
        cu_seqlens, longest = run.layout[lengths]
        kwargs = {**kwargs, "position_embeddings": run.layout[rope], "cu_seqlens": cu_seqlens}
        if kwargs.get("max_seqlen") is not None:
            kwargs["max_seqlen"] = longest
        return args, kwargs

    def of_units(self, x: Tensor, slots: Tensor) -> Tensor:
        """Rows of `x` [patches, ...] that belong to these units."""
        size = self.module.spatial_merge_size**2
        return x.unflatten(0, (-1, size))[slots.to(x.device)].flatten(0, 1)

    def seqlens(self, cu_seqlens: Tensor, slots: Tensor) -> tuple[Tensor, int]:
        """Cumulative lengths of what is left of each window or frame, without the empty; the longest.

        On the CPU but for FlashAttention: other attention splits by them block after block, one sync each.
        """
        size = self.module.spatial_merge_size**2
        segment = torch.searchsorted(cu_seqlens[1:].contiguous(), slots.to(cu_seqlens) * size, right=True)
        counts = torch.bincount(segment.cpu(), minlength=len(cu_seqlens) - 1) * size
        counts = counts[counts > 0]
        narrowed = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(cu_seqlens.dtype)
        flash = "flash" in self.module.config._attn_implementation
        return narrowed.to(cu_seqlens.device) if flash else narrowed, int(counts.max())

    def _widen(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """The merger's rows back to one per unit, NaN where one left, for the un-windowing that follows."""
        slots = self.run.layout.get(max(self.stages)) if self.run else None
        if slots is None or len(slots) == len(self.run.layout["order"]):
            return None
        full = output.new_full((len(self.run.layout["order"]), output.shape[-1]), float("nan"))
        return full.index_copy(0, slots.to(output.device), output)

    def kept_units(self, run: Run) -> Tensor:
        """Which units the stages left, bool [units of all images], raster order."""
        order, slots = run.layout["order"], run.layout[max(self.stages)]
        kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        return kept.index_fill(0, order[slots.to(order.device)], True)


def of_whole_images(outcome: Outcome, parts: int, entered: int) -> Outcome:
    """The outcome of B · parts parts with `entered` tokens each as one of B images."""

    def together(x: Tensor | None, step: int) -> Tensor | None:
        if x is None:
            return None
        x = x.unflatten(0, (-1, parts))  # [B, parts, n]
        return (x + step * torch.arange(parts, device=x.device)[:, None]).flatten(1)

    count = outcome.keep.shape[1]
    return Outcome(
        None,
        together(outcome.keep, entered),
        together(outcome.assignment, count),
        together(outcome.sizes, 0),
        together(outcome.scores, 0),
    )


def whole_groups(grids: list[tuple[int, int, int]]) -> list[Group]:
    """Images with equal grids together, nothing left yet."""
    by_grid: dict[tuple, list[int]] = {}
    for image, grid in enumerate(grids):
        by_grid.setdefault(grid, []).append(image)
    return [Group(images, None, None, None) for images in by_grid.values()]
