"""Qwen2.5-VL and Qwen2-VL: images and videos of any size, m-RoPE."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..prompts.adapter import VLMAdapter
from ..prompts.condense import Memory
from ..prompts.reader import Encoded
from ..pruning.run import Run
from ..stats import VTPStats, collect, joined
from ..towers.tower import Tower
from .base import register_adapter, tower_for


@register_adapter("qwen2_5_vl", "qwen2_vl")
class QwenAdapter(VLMAdapter):
    """Images and videos; kept tokens keep their three rows of m-RoPE positions."""

    media = {"pixel_values": "image_token_id", "pixel_values_videos": "video_token_id"}
    media_arguments = (
        "mm_encoder_outputs",
        "image_grid_thw",
        "video_grid_thw",
        "second_per_grid_ts",
        "mm_token_type_ids",
    )
    grids = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}
    encoders = {"pixel_values": "get_image_features", "pixel_values_videos": "get_video_features"}

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        module = self.inner.visual
        cls = tower_for(module)
        depth = len(cls.layers(module))
        whole = getattr(module, "fullatt_block_indexes", [])  # blocks that see a whole frame
        default = min([i for i in whole if i < depth - 1], default=depth // 4)
        self.runs: list[Run] = []
        return cls(module, config, config.stages(depth, default, has_output=True))

    def encode(self, arguments: dict) -> dict[str, Encoded]:
        encoded, runs = {}, []
        for name, encoder in self.encoders.items():
            if arguments.get(name) is None:
                continue
            if self.tower.call.text is not None:
                self.tower.call.text = replace(self.tower.call.text, medium=name)
            pixels, grid = (self.pixels(arguments, n) for n in (name, self.grids[name]))
            output = getattr(self.inner, encoder)(pixels, grid, return_dict=True)
            run = self.tower.call.last
            runs.append(run)
            kept = self.tower.kept_units(run)
            table = torch.cat(list(output.pooler_output))
            rows = table[kept.to(table.device)].split(self.tower.num_kept(run))
            encoded[name] = Encoded.of(output, rows, kept)
        self.runs = runs
        return encoded

    def tokens_per_image(self, arguments: dict) -> dict[str, list[int]]:
        size = self.inner.visual.spatial_merge_size**2
        there = {name: grid for name, grid in self.grids.items() if arguments.get(name) is not None}
        for name, grid in there.items():
            if arguments.get(grid) is None:
                raise ValueError(f"{name} come without {grid}; pass what the processor returned")
        grids = {name: arguments[grid].tolist() for name, grid in there.items()}
        return {name: [t * h * w // size for t, h, w in grid] for name, grid in grids.items()}

    def project(self, content: Tensor) -> Tensor:
        visual = self.inner.visual
        patches = content.unflatten(-1, (visual.spatial_merge_size**2, -1)).flatten(0, -2)
        return visual.merger(patches).unflatten(0, content.shape[:2])

    def __getstate__(self) -> dict:
        return {**vars(self), "runs": []}  # what a forward left is no part of a model

    def stats(self) -> VTPStats:
        """Of the images, then of the videos of the last call."""
        if self.runs and self.runs[-1] is self.tower.last:
            return joined([collect(run) for run in self.runs])
        return super().stats()

    def local_positions(self, arguments: dict, mask: Tensor, generating: bool) -> tuple[Tensor, Tensor]:
        ids, types = arguments.get("input_ids"), arguments.get("mm_token_type_ids")
        grids = {name: arguments.get(name) for name in self.grids.values()}
        if ids is None or types is None or all(grid is None for grid in grids.values()):
            place, following = super().local_positions(arguments, mask, generating)
            if generating:
                self.inner.rope_deltas = torch.zeros_like(following)
            return place.expand(3, -1, -1), following.expand(3, -1, -1)
        try:
            place, self.inner.rope_deltas = self.inner.get_rope_index(
                ids,
                types[:, -ids.shape[1] :],
                **grids,
                second_per_grid_ts=arguments.get("second_per_grid_ts"),
                attention_mask=mask,
            )
        except StopIteration:
            raise ValueError(
                "the prompt holds more groups of placeholders than images and videos; give a row of "
                "image_grid_thw or video_grid_thw for each, as the processor does"
            ) from None
        return place, (place.amax(dim=(0, 2))[:, None] + 1).expand(3, -1, -1)

    def generation_positions(self, memory: Memory) -> Tensor:
        """A row of text positions goes in front, [4, B, m]: masks are made from it."""
        text = (memory.mask.cumsum(dim=-1) - 1).clamp(min=0)
        return torch.cat([text[None], memory.position_ids.expand(3, -1, -1)])

    def generation_shift(self, shift: Tensor | None) -> Tensor | None:
        return None if shift is None else torch.cat([torch.zeros_like(shift[:1]), shift])
