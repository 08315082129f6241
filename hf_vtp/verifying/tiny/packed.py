"""Packed towers: recipes for tiny models."""

from __future__ import annotations

import torch
from torch import Tensor

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


RECIPES = {"qwen2_5_vl": _qwen, "qwen2_vl": _qwen}  # by the config's model_type
