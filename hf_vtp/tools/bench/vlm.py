"""A vision-language model for a benchmark: its weights, its parts, its prompts and one call of generate."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from ...names import cache_in
from ..cards.hub import load
from . import cli
from .cli import UsageError, first_sentence
from .geometry import CLASSES, build, known, named_config

INSTEAD = "give --weights random for a geometry by name, or a local folder with --model"
SPECIAL = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
ANY_SIZE = ("qwen2_5_vl",)  # families whose images have as many tokens as they are large
FIRST_WORD = 3  # ids below it are the padding, the beginning and the end of texts


def load_model(
    name: str, weights: str, dtype: torch.dtype, attention: str | None, device: torch.device
) -> PreTrainedModel:
    """A model in eval mode on `device`, which generates greedily and never ends by itself.

    `weights` is "pretrained" (a folder, the local cache, the Hub) or "random" (no download: a geometry by
    name or a folder's config.json; seed torch before). Raises UsageError for what cannot be had.
    """
    config = config_of(name, weights)
    if weights == "pretrained":
        model = load(name, partial(_pretrained, config=config, dtype=dtype), INSTEAD).to(device).eval()
    else:
        model = _random(name, config, dtype, device)
    if attention:
        cli.set_attention(model, attention, dtype, device)
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)  # no end: all cases alike
    return model


def config_of(name: str, weights: str) -> PreTrainedConfig:
    """What load_model makes a model of, without its weights; raises UsageError as that does."""
    config = named_config(name) if weights == "random" else None
    if config is not None:
        return config
    if weights == "random" and not Path(name).is_dir():
        raise UsageError(f"no geometry is known for {name}; choose a folder or {', '.join(known())}")
    return load(name, _config, INSTEAD)


def _random(name: str, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    try:
        return build(config, dtype, device)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:  # numbers that do not go together
        raise UsageError(f"{name} cannot be built: {first_sentence(error)}") from None


def _config(name: str, local_files_only: bool) -> PreTrainedConfig:
    raw, _ = PreTrainedConfig.get_config_dict(name, local_files_only=local_files_only)
    model_type = raw.get("model_type")
    if model_type is None:
        raise UsageError(f"{name} has no config.json that names a model_type; {INSTEAD}")
    if model_type not in CLASSES:
        raise UsageError(
            f"{name} is of model_type {model_type!r}, which this benchmark does not measure; choose a model "
            f"of model_type {' or '.join(map(repr, CLASSES))}"
        )
    return CLASSES[model_type][0].from_dict(raw)


def _pretrained(
    name: str, local_files_only: bool, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    return CLASSES[config.model_type][1].from_pretrained(
        name, config=config, dtype=dtype, local_files_only=local_files_only
    )


def parts(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules that are measured one by one; Qwen's projector, its merger, lies inside the tower."""
    inner = model.model
    if model.config.model_type == "llava":
        tower, projector = inner.vision_tower, inner.multi_modal_projector
    else:
        tower, projector = inner.visual, inner.visual.merger
    return {
        "tower": tower,
        "projector": projector,
        "language": inner.language_model,
        "head": model.lm_head,
    }


def generate(model: PreTrainedModel, inputs: dict, new_tokens: int) -> Cache:
    """The cache after so many new tokens, all rows having as many: prompt and all of them but the last."""
    return cache_in(model.generate(**inputs, max_new_tokens=new_tokens, return_dict_in_generate=True))


def cache_bytes(cache: Cache) -> int:
    """Bytes of all keys and values that a cache holds."""
    return sum(x.numel() * x.element_size() for layer in cache.layers for x in (layer.keys, layer.values))


def inputs_for(
    model: PreTrainedModel, batch_size: int, text_tokens: int, visual_tokens: int | None, seed: int
) -> tuple[dict[str, Tensor], str]:
    """A batch of prompts of random words with one random image each, on the model's device; the image's size.

    The image (height x width in pixels) has about `visual_tokens` of them where the family has a choice.
    """
    generator = torch.Generator().manual_seed(seed)
    config, make = model.config, {"llava": _llava_image, "qwen2_5_vl": _qwen_image}[model.config.model_type]
    image, media, size = make(config, batch_size, visual_tokens, generator)
    words = torch.arange(FIRST_WORD, config.get_text_config().vocab_size)
    words = words[~torch.isin(words, torch.tensor([getattr(config, name, -1) for name in SPECIAL]))]
    words = words[torch.randint(len(words), (batch_size, text_tokens), generator=generator)]
    before = text_tokens // 2
    image = torch.tensor(image).expand(batch_size, -1)
    ids = torch.cat([words[:, :before], image, words[:, before:]], dim=1)  # [B, n]
    media = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in media.items()}
    if model.config.model_type == "qwen2_5_vl":
        media["mm_token_type_ids"] = (ids == config.image_token_id).int()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **media}
    return {name: x.to(model.device) for name, x in inputs.items()}, size


def _llava_image(config, batch_size: int, visual_tokens: int | None, generator) -> tuple:
    vision = config.vision_config
    side = vision.image_size
    tokens = (side // vision.patch_size) ** 2 + (config.vision_feature_select_strategy == "full")
    pixels = torch.randn(batch_size, 3, side, side, generator=generator)
    return [config.image_token_id] * tokens, {"pixel_values": pixels}, f"{side}x{side}"


def _qwen_image(config, batch_size: int, visual_tokens: int, generator) -> tuple:
    vision = config.vision_config
    rows, columns = near_square(visual_tokens)
    merge, patch = vision.spatial_merge_size, vision.patch_size
    grid = torch.tensor([[1, rows * merge, columns * merge]] * batch_size)
    numbers = vision.in_channels * vision.temporal_patch_size * patch**2  # in one patch
    pixels = torch.randn(int(grid.prod(-1).sum()), numbers, generator=generator)
    image = [config.vision_start_token_id, *[config.image_token_id] * (rows * columns)]
    size = f"{rows * merge * patch}x{columns * merge * patch}"
    media = {"pixel_values": pixels, "image_grid_thw": grid}
    return [*image, config.vision_end_token_id], media, size


def near_square(tokens: int) -> tuple[int, int]:
    """Rows and columns of a grid with about so many tokens."""
    rows = max(1, round(tokens**0.5))
    return rows, max(1, round(tokens / rows))
