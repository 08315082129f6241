"""Recipes for a random model of two layers of every family, with inputs for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

IMAGE, VIDEO, START, END, PAD, WORDS = 30, 31, 32, 33, 0, 40
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(SIZES, image_size=16, patch_size=4, projection_dim=8)  # 16 patches
TEXT = dict(
    SIZES,
    vocab_size=WORDS,
    num_key_value_heads=2,
    max_position_embeddings=128,
    pad_token_id=PAD,
    bos_token_id=None,
    eos_token_id=None,
)
GRIDS = [[1, 4, 8], [1, 8, 4], [1, 4, 4]]  # of images, in patches; units of 2 × 2


def tiny(kind: type[nn.Module], config: object) -> tuple[nn.Module, dict[str, Tensor]] | None:
    """A tiny model of a class, on the CPU and in eval mode, and a batch for it.

    `config` is that of a model of full size, whose family and language model are taken over. None for a
    family or a vision tower without a recipe.
    """
    recipe = RECIPES.get(config.model_type)
    if recipe is None:
        return None
    numbers = torch.Generator().manual_seed(0)
    made = recipe(config, numbers)
    if made is None:
        return None
    changes, inputs = made
    model = kind(type(config)(**changes)).float().eval()
    with torch.no_grad():
        for (
            name,
            weight,
        ) in model.named_parameters():  # sharp attention: a uniform one would hide a wrong mask
            if weight.dim() > 1 or "class_embedding" in name:
                spread = 1.0 if "embed" in name else 2.0 * weight[0].numel() ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=numbers) * spread)
    return model, inputs


def _clip_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return VISION, {"pixel_values": torch.randn(2, 3, 16, 16, generator=numbers)}


def _clip(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes, inputs = _clip_vision(config, numbers)
    text = dict(SIZES, vocab_size=WORDS, max_position_embeddings=8, projection_dim=8)
    ends = dict(pad_token_id=PAD, bos_token_id=1, eos_token_id=2)
    inputs["input_ids"] = torch.tensor([[1, 5, 7, 2]])
    return {"text_config": dict(text, **ends), "vision_config": changes, "projection_dim": 8}, inputs


def _llava(config, numbers: torch.Generator) -> tuple[dict, dict] | None:
    if config.vision_config.model_type != "clip_vision_model":
        return None  # apply_vtp refuses other towers
    changes = {
        "vision_config": dict(VISION, model_type=config.vision_config.model_type),
        "text_config": dict(TEXT, model_type=config.text_config.model_type),
        "image_token_id": IMAGE,
        "image_seq_length": 16,
        "vision_feature_layer": -1,
    }
    pixels = torch.randn(3, 3, 16, 16, generator=numbers)
    return changes, {**_prompt([[16, 16], [16]]), "pixel_values": pixels}


def _qwen(config, numbers: torch.Generator) -> tuple[dict, dict]:
    rope = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2])
    vision = dict(depth=2, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
    if config.model_type == "qwen2_vl":
        vision |= dict(embed_dim=16, hidden_size=16, mlp_ratio=2)
    else:
        vision |= dict(hidden_size=16, out_hidden_size=16, intermediate_size=32)
        vision |= dict(window_size=16, fullatt_block_indexes=[1])
    names = dict(
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END
    )
    changes = dict(vision_config=vision, text_config=dict(TEXT, rope_parameters=rope), **names)
    inputs = _prompt([[8, 8], [4]])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    inputs["image_grid_thw"] = torch.tensor(GRIDS)
    inputs["pixel_values"] = torch.randn(4 * (4 + 8 + 8), 96, generator=numbers)
    return changes, inputs


def _prompt(images: list[list[int]]) -> dict[str, Tensor]:
    """Rows with so many placeholders an image and words around them, padded on the left.

    The first, to be the longest, begins with a placeholder: a decode step that took the features of the
    prompt once more would go unseen where that begins with a word or with padding.
    """
    rows = []
    for counts in images:
        row = [3, 4, START] if rows else []
        for i, count in enumerate(counts):
            row += [*[IMAGE] * count, END, 5 + i, START]
        rows.append([*row[:-1], 8, 9])
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


RECIPES: dict[str, Callable] = {  # by the config's model_type
    "clip": _clip,
    "clip_vision_model": _clip_vision,
    "llava": _llava,
    "qwen2_5_vl": _qwen,
    "qwen2_vl": _qwen,
}
