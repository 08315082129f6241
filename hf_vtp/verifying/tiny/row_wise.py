"""Tiny random models for families whose projector maps rows one by one (LLaVA and its kin)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlavaOnevisionModel
from transformers.image_processing_utils import select_best_resolution

from ...names import parameters
from .prompts import IMAGE, PAD, VIDEO, WORDS, prompt

BREAK = 34
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(SIZES, num_hidden_layers=3, image_size=16, patch_size=4, projection_dim=8)  # 16 patches
TEXT = dict(
    SIZES,
    vocab_size=WORDS,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    pad_token_id=PAD,
    bos_token_id=None,
    eos_token_id=None,
)
TOWERS = {  # tokens before the patches, and what VISION lacks
    "clip_vision_model": (1, {}),
    "deit": (2, {}),
    "dinov2": (1, dict(mlp_ratio=2)),
    "dinov2_with_registers": (3, dict(mlp_ratio=2, num_register_tokens=2)),
    "ijepa": (0, {}),
    "internvl_vision": (1, dict(image_size=[16, 16], patch_size=[4, 4])),
    "mlcd_vision_model": (1, {}),
    "pixtral": (0, dict(image_size=32)),
    "siglip_vision_model": (0, {}),
    "vit": (1, {}),
}
PINPOINTS = [[16, 16], [16, 32], [32, 16], [32, 32], [16, 48], [48, 16]]  # one to four tiles and the base
WIDE, TALL, SMALL = (9, 40), (30, 22), (14, 15)  # 4, 5 and 2 tiles; unpadding cuts the first two
PIXTRAL = [(16, 24), (24, 16), (16, 16)]  # sizes of images, in units of 2 × 2 patches


def _text(config) -> dict:
    changes = dict(TEXT, model_type=config.text_config.model_type)
    if changes["model_type"] == "gemma2":
        changes["query_pre_attn_scalar"] = 8
    return changes


def _vision(config) -> tuple[int, dict]:
    """Tokens before the patches in the tower that the config names (-1 without a recipe), and its changes."""
    kind = config.vision_config.model_type
    prefix, extra = TOWERS.get(kind, (-1, {}))
    if hasattr(config.vision_config, "vision_use_head"):
        extra = dict(extra, vision_use_head=config.vision_config.vision_use_head)
    return prefix, dict(VISION, **extra, model_type=kind)


def _base(config, **more) -> dict:
    return dict(vision_config=_vision(config)[1], text_config=_text(config), image_token_id=IMAGE, **more)


def _layers(layer: int | list[int]) -> int | list[int]:
    """One feature layer as a config of full size has it, or two where it has several."""
    return (layer if -4 <= layer <= 3 else -2) if isinstance(layer, int) else [-1, 2]


def _pixels(numbers: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=numbers)


def _alike(numbers: torch.Generator, count: int = 16, side: int = 16) -> dict[str, Tensor]:
    """Three images of one size and of so many placeholders."""
    image = [IMAGE] * count
    return {**prompt([[image, image], [image]]), "pixel_values": _pixels(numbers, 3, 3, side, side)}


def _pixtral(numbers: torch.Generator, merge: int) -> dict[str, Tensor]:
    """As PixtralProcessor does: a break after each row of units, an end after the last."""
    images, pixels = [], torch.zeros(3, 3, 24, 24)
    for pad, (height, width) in zip(pixels, PIXTRAL, strict=True):
        row = [*[IMAGE] * (width // (4 * merge)), BREAK]
        images.append((row * (height // (4 * merge)))[:-1])  # _prompt adds the end
        pad[:, :height, :width] = _pixels(numbers, 3, height, width)
    return {**prompt([images[:2], images[2:]]), "pixel_values": pixels, "image_sizes": torch.tensor(PIXTRAL)}


def _llava(config, numbers: torch.Generator) -> tuple[dict, dict] | None:
    prefix, vision = _vision(config)
    if prefix < 0:
        return None
    changes = _base(config, vision_feature_layer=_layers(config.vision_feature_layer))
    changes["vision_feature_select_strategy"] = config.vision_feature_select_strategy
    if vision["model_type"] == "pixtral":
        return dict(changes, vision_feature_select_strategy="full"), _pixtral(numbers, 1)
    return changes, _alike(numbers, 16 + prefix - (config.vision_feature_select_strategy == "default"))


def _vipllava(config, numbers: torch.Generator) -> tuple[dict, dict] | None:
    prefix, _ = _vision(config)
    layers = _layers(config.vision_feature_layers)  # a name that both releases know, one as an alias
    return None if prefix < 0 else (_base(config, vision_feature_layers=layers), _alike(numbers, 15 + prefix))


def _mistral3(config, numbers: torch.Generator) -> tuple[dict, dict]:
    layer = config.vision_feature_layer  # of several, upstream's norm fails
    layer = _layers(layer) if isinstance(layer, int) else [-1]
    return _base(config, spatial_merge_size=2, vision_feature_layer=layer), _pixtral(numbers, 2)


def _tiles(numbers: torch.Generator, sizes: list[tuple[int, int]], whole: int = 0) -> dict[str, Tensor]:
    """Tiles as the image processors stack them; so many images at the front are not cut into any."""
    counts = []
    for size in sizes:
        height, width = select_best_resolution(size, PINPOINTS)
        counts.append(1 if len(counts) < whole else 1 + height * width // 256)
    pixels = torch.zeros(len(sizes), max(counts), 3, 16, 16)
    for pad, count in zip(pixels, counts, strict=True):
        pad[:count] = _pixels(numbers, count, 3, 16, 16)
    return {"pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def _unpadded(size: tuple[int, int], most: int | None = None) -> list[int]:
    """Placeholders of an image in tiles, as the processors of LLaVA-NeXT and OneVision count them."""
    rows, columns = (side // 4 for side in select_best_resolution(size, PINPOINTS))
    height, width = size
    if width / height > columns / rows:
        rows -= (rows - int(round(height * columns / width, 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * rows / height, 7))) // 2 * 2
    ratio = math.sqrt(rows * columns / (most * 16)) if most else 0
    if ratio > 1.1:
        rows, columns = int(rows // ratio), int(columns // ratio)
    return [IMAGE] * (16 + rows * (columns + 1))


def _next(config, numbers: torch.Generator) -> tuple[dict, dict] | None:
    prefix, _ = _vision(config)
    if prefix not in (0, 1):
        return None  # what is left of a tile would be no square
    changes = _base(
        config,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=_layers(config.vision_feature_layer),
        vision_feature_select_strategy="default" if prefix else "full",
    )
    rows = [[_unpadded(TALL), _unpadded(WIDE)], [_unpadded(SMALL)]]
    return changes, {**prompt(rows), **_tiles(numbers, [TALL, WIDE, SMALL])}


def _next_video(config, numbers: torch.Generator) -> tuple[dict, dict] | None:
    made = _next(config, numbers)
    if made is None:
        return None
    clip = [VIDEO] * (4 * 3)  # three frames, pooled 2 × 2
    rows = [[_unpadded(WIDE), clip, _unpadded(SMALL)], [clip, _unpadded(SMALL)]]
    inputs = {**prompt(rows), **_tiles(numbers, [WIDE, SMALL, SMALL])}
    inputs["pixel_values_videos"] = _pixels(numbers, 2, 3, 3, 16, 16)
    return {**made[0], "video_token_id": VIDEO}, inputs


def _onevision(config, numbers: torch.Generator) -> tuple[dict, dict] | None:
    made = _next(config, numbers)
    if made is None:
        return None
    # Images of a row with several are not cut into tiles; the tiles of TALL are shrunk.
    whole, clip = [IMAGE] * 17, [VIDEO] * (4 * 3 + 1)
    # in older releases the newline of a clip is no feature, and videos with it are refused
    videos = "pixel_values_videos" in parameters(LlavaOnevisionModel.get_video_features)
    first = [whole, clip, whole] if videos else [whole, whole]
    inputs = prompt([first, [_unpadded(TALL, 2)], [_unpadded(SMALL, 2)]])
    inputs |= _tiles(numbers, [SMALL, WIDE, TALL, SMALL], whole=2)
    inputs["batch_num_images"] = torch.tensor([2, 1, 1])
    if videos:
        inputs["pixel_values_videos"] = _pixels(numbers, 1, 3, 3, 16, 16)
    return {**made[0], "video_token_id": VIDEO, "vision_aspect_ratio": "anyres_max_2"}, inputs


def _paligemma(config, numbers: torch.Generator) -> tuple[dict, dict]:
    # A tied head of sharp random weights says the last word again, whatever the image.
    changes = _base(config, projection_dim=16, hidden_size=16, vocab_size=WORDS, tie_word_embeddings=False)
    inputs = _alike(numbers)
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    inputs["token_type_ids"][:, -2:] = 1  # a suffix, which is causal
    return changes, inputs


def _deepseek(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return _base(config, tie_word_embeddings=False), _alike(numbers)  # untied as in _paligemma


def _hybrid(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes, inputs = _deepseek(config, numbers)
    sam = dict(SIZES, model_type="sam_vision_model", image_size=32, patch_size=4, output_channels=4)
    sam |= dict(window_size=3, global_attn_indexes=[0, 1], mlp_dim=32, num_pos_feats=8)
    changes["high_res_vision_config"] = sam
    return changes, {**inputs, "high_res_pixel_values": _pixels(numbers, 3, 3, 32, 32)}


def _janus(config, numbers: torch.Generator) -> tuple[dict, dict]:
    generator = dict(model_type="janus_vqgan", base_channels=32, channel_multiplier=[1, 1], num_res_blocks=1)
    generator |= dict(latent_channels=32, embed_dim=4, num_embeddings=16)
    generator |= dict(projection_dim=16, image_token_embed_dim=16)
    changes = _base(config, vq_config=generator, tie_word_embeddings=False)
    changes["vision_config"] |= dict(mlp_ratio=2, num_image_tokens=16, projection_dim=16)
    return changes, _alike(numbers)


def _video_llava(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = _base(config, video_token_id=VIDEO, vision_feature_layer=_layers(config.vision_feature_layer))
    image, clip = [IMAGE] * 16, [VIDEO] * (17 * 2)  # frames keep their class token
    inputs = prompt([[image, clip, image], [clip, image]])
    inputs["pixel_values_images"] = _pixels(numbers, 3, 3, 16, 16)  # the one name both releases know
    return changes, {**inputs, "pixel_values_videos": _pixels(numbers, 2, 2, 3, 16, 16)}


RECIPES: dict[str, Callable] = {  # by the config's model_type
    "deepseek_vl": _deepseek,
    "deepseek_vl_hybrid": _hybrid,
    "janus": _janus,
    "llava": _llava,
    "llava_next": _next,
    "llava_next_video": _next_video,
    "llava_onevision": _onevision,
    "mistral3": _mistral3,
    "paligemma": _paligemma,
    "video_llava": _video_llava,
    "vipllava": _vipllava,
}
