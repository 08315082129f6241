"""LLaVA: LlavaForConditionalGeneration and LlavaModel over any tower that has hooks of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..prompts.adapter import VLMAdapter
from ..prompts.reader import Encoded
from ..towers.tower import Tower
from .base import register_adapter, tower_for


def states_read(layer: int | list[int], num_layers: int) -> list[int]:
    """Which of the tower's `num_layers` + 1 hidden states a vision_feature_layer names, counted from 0."""
    layers = [layer] if isinstance(layer, int) else layer
    if any(not -num_layers <= i <= num_layers or i == 0 for i in layers):
        raise ValueError(
            f"vision_feature_layer={layer} reads no layer's output of a tower with {num_layers}; "
            f"choose from 1 to {num_layers} or -{num_layers} to -1"
        )
    return [i % (num_layers + 1) for i in layers]


@register_adapter("llava")
class LlavaAdapter(VLMAdapter):
    """The projector runs on kept tokens only; state i of the tower is the output of its layer i - 1."""

    media = {"pixel_values": "image_token_id"}
    media_arguments = (
        "mm_encoder_outputs",
        "image_sizes",
        "vision_feature_layer",
        "vision_feature_select_strategy",
    )

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        module = self.inner.vision_tower
        cls = tower_for(module)
        layer = model.config.vision_feature_layer
        depth = min(states_read(layer, len(cls.layers(module))))
        what = f"the last layer that feeds what LLaVA reads (vision_feature_layer={layer})"
        return cls(module, config, config.stages(depth, depth // 2, what, has_output=True))

    def refuse(self, arguments: dict) -> None:
        super().refuse(arguments)
        layer = arguments.get("vision_feature_layer")
        if layer is None:
            layer = self.model.config.vision_feature_layer  # which may have changed since apply_vtp
        depth = min(states_read(layer, len(self.tower.layer_hooks)))
        if "text" in self.tower.needs and isinstance(layer, list) and len(layer) > 1:
            raise NotImplementedError(
                f"method {self.config.method!r} compares tokens of one layer with the prompt, not those of "
                f"vision_feature_layer={layer}; choose another method"
            )
        if max(self.tower.stages) >= depth:
            raise ValueError(
                f"vision_feature_layer={layer} reads a state from before the stage at layer "
                f"{max(self.tower.stages)}; apply_vtp with a layer from 0 to {depth - 1} for it"
            )

    def encode(self, arguments: dict) -> dict[str, Encoded]:
        if arguments.get("pixel_values") is None:
            return {}
        given = {k: arguments[k] for k in self.media_arguments if arguments.get(k) is not None}
        output = self.inner.get_image_features(
            pixel_values=self.pixels(arguments, "pixel_values"), return_dict=True, **given
        )
        prefix, run = self.prefix(arguments), self.tower.call.last
        kept = torch.nn.functional.pad(self.tower.kept(run), (prefix, 0), value=True)  # [images, P + N]
        rows, left = list(output.pooler_output), self.tower.left(run)
        if left is not None:
            left = torch.nn.functional.pad(left, (prefix, 0), value=True)
            rows = [row[stays.to(row.device)] for row, stays in zip(rows, left, strict=True)]
        return {"pixel_values": Encoded.of(output, rows, kept.flatten())}

    def prefix(self, arguments: dict) -> int:
        """Prefix tokens of each image that go to the language model."""
        strategy = arguments.get("vision_feature_select_strategy")
        strategy = strategy or self.model.config.vision_feature_select_strategy
        return self.tower.num_prefix_tokens if strategy == "full" else 0

    def tokens_per_image(self, arguments: dict) -> dict[str, list[int]]:
        patch, pixels = self.tower.module.config.patch_size, arguments.get("pixel_values")
        if pixels is None:
            return {}
        count = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch) + self.prefix(arguments)
        return {"pixel_values": [count] * pixels.shape[0]}

    def project(self, content: Tensor) -> Tensor:
        return self.inner.multi_modal_projector(content)
