"""Recipes for families whose projector needs the grid of patches: cells of s × s become one row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import CLIPVisionConfig

from .prompts import END, IMAGE, PAD, START, VIDEO, WORDS, prompt

BREAK = 34
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(SIZES, image_size=24, patch_size=4)  # 6 × 6 patches, 3 × 3 cells of 2 × 2
TEXT = dict(SIZES, vocab_size=WORDS, num_key_value_heads=2, head_dim=8, max_position_embeddings=256)
TEXT |= dict(pad_token_id=PAD, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False)
WINDOWS = dict(sliding_window=128, layer_types=["sliding_attention", "full_attention"])
TILES = [[[9, 9, 9], [9]], [[9]]]  # placeholders a tile; the first image has two crops and a thumbnail
GRIDS = [(6, 8), (8, 4), (4, 4)]  # of images of any size, in patches


def _prompt(rows: list[list[list[int]]]) -> dict[str, Tensor]:
    """Rows of images, each of runs of so many placeholders with a break between them."""
    return prompt([[_broken(runs) for runs in images] for images in rows])


def _broken(runs: list[int]) -> list[int]:
    return [x for count in runs for x in (*[IMAGE] * count, BREAK)][:-1]


def _text(config, **changes) -> dict:
    return {**TEXT, "model_type": config.text_config.model_type, **changes}


def _changes(vision: dict, text: dict, **more) -> dict:
    # tied, the last word of the prompt would be the next one, whatever the images
    return dict(vision_config=vision, text_config=text, tie_word_embeddings=False, **more)


def _pixels(numbers: torch.Generator, *sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=numbers)


def _vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = _llama4_vision() if config.model_type == "llama4_vision_model" else VISION
    return changes, {"pixel_values": _pixels(numbers, 2, 3, 24, 24)}


def _idefics3(config, numbers: torch.Generator) -> tuple[dict, dict]:
    factor = 3 if config.model_type == "smolvlm" else 2
    changes = _changes(VISION, _text(config), scale_factor=factor, image_token_id=IMAGE)
    inputs = _prompt([[[36 // factor**2] * len(runs) for runs in images] for images in TILES])
    inputs["pixel_values"] = _pixels(numbers, 2, 4, 3, 24, 24)
    inputs["pixel_attention_mask"] = torch.ones(2, 4, 24, 24, dtype=torch.bool)
    inputs["pixel_attention_mask"][0, 0, :, 16:] = False  # the processor pads the smaller images of a batch
    inputs["pixel_attention_mask"][1, 1:] = False  # the tiles that a row has fewer than another
    inputs["pixel_values"] *= inputs["pixel_attention_mask"][:, :, None]
    return changes, inputs


def _granite_docling(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, out_hidden_size=16, scale_factor=2, deepstack_visual_indexes=[0, 1])
    factors = dict(embedding_multiplier=2.0, residual_multiplier=1.0, attention_multiplier=1.0)
    text = _text(config, num_hidden_layers=3, **factors)  # features are added after the first layers
    changes = _changes(vision, text, image_token_id=IMAGE, pad_token_id=PAD)
    inputs = _prompt(TILES)
    inputs["pixel_values"] = _pixels(numbers, 2, 4, 3, 24, 24)
    inputs["pixel_attention_mask"] = torch.tensor([[True] * 4, [True] + [False] * 3])
    return changes, inputs


def _internvl(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, image_size=(24, 24), patch_size=(4, 4), layer_scale_init_value=1.0)
    changes = _changes(vision, _text(config), image_token_id=IMAGE, image_seq_length=9)
    inputs = _prompt([[[18], [9]], [[9]]])  # no token between the tiles of an image
    return changes, {**inputs, "pixel_values": _pixels(numbers, 4, 3, 24, 24)}


def _cohere2_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, model_type=config.vision_config.model_type)
    sizes = dict(downsample_factor=2, alignment_intermediate_size=32)
    changes = _changes(vision, _text(config, **WINDOWS), **sizes)
    changes["image_token_id" if config.model_type == "cohere2_vision" else "image_token_index"] = IMAGE
    return changes, {**_prompt(TILES), "pixel_values": _pixels(numbers, 5, 3, 24, 24)}


def _ovis2(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, vocab_size=20, hidden_stride=2, num_visual_indicator_tokens=5)
    changes = _changes(vision, _text(config), image_token_id=IMAGE)
    changes |= dict(visual_indicator_token_ids=[START, BREAK, 35, 36, END], vocab_size=WORDS, hidden_size=16)
    return changes, {**_prompt(TILES), "pixel_values": _pixels(numbers, 5, 3, 24, 24)}


def _llama4_vision() -> dict:
    sizes = dict(vision_output_dim=16, projector_input_dim=16, projector_output_dim=16)
    return dict(VISION, **sizes, intermediate_size=64)  # read as the width of a cell as well


def _llama4(config, numbers: torch.Generator) -> tuple[dict, dict]:
    kinds = dict(no_rope_layers=[1, 0], layer_types=["chunked_attention", "full_attention"])
    experts = dict(intermediate_size_mlp=32, num_local_experts=2, interleave_moe_layer_step=2)
    text = _text(config, **kinds, **experts, attention_chunk_size=128)
    changes = _changes(_llama4_vision(), text, image_token_index=IMAGE)
    return changes, {**_prompt(TILES), "pixel_values": _pixels(numbers, 5, 3, 24, 24)}


def _gemma3(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, model_type=config.vision_config.model_type)
    text = _text(config, query_pre_attn_scalar=8, **WINDOWS)
    changes = _changes(vision, text, image_token_index=IMAGE, mm_tokens_per_image=9)
    inputs = _prompt([[[9], [9]], [[9]]])
    inputs["token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    return changes, {**inputs, "pixel_values": _pixels(numbers, 3, 3, 24, 24)}


def _gemma3n(config, numbers: torch.Generator) -> tuple[dict, dict]:
    text = _text(config, vocab_size_per_layer_input=IMAGE, hidden_size_per_layer_input=4, **WINDOWS)
    text |= dict(num_kv_shared_layers=0, laurel_rank=4, altup_num_inputs=2, activation_sparsity_pattern=None)
    text["altup_correct_scale"] = False  # its zeros would hide the inputs per layer
    vision = dict(hidden_size=16, vocab_size=8, vocab_offset=IMAGE)
    audio = dict(hidden_size=16, vocab_size=2, vocab_offset=38, conf_num_attention_heads=2)
    audio |= dict(conf_num_hidden_layers=1, input_feat_size=16)
    changes = _changes(vision, text, audio_config=audio, image_token_id=IMAGE)
    changes |= dict(vision_soft_tokens_per_image=9, audio_token_id=39)
    inputs = _prompt([[[9], [9]], [[9]]])
    inputs["token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    return changes, {**inputs, "pixel_values": _pixels(numbers, 3, 3, 24, 24)}


def _gemma4(config, numbers: torch.Generator) -> tuple[dict, dict]:
    unified = config.model_type == "gemma4_unified"
    layers = ["sliding_attention", "full_attention", "full_attention"]
    text = _text(config, sliding_window=128, use_bidirectional_attention="vision", global_head_dim=8)
    text |= dict(num_hidden_layers=3, layer_types=layers)
    if unified:
        vision = dict(patch_size=4, model_patch_size=8, pooling_kernel_size=2)
        vision |= dict(mm_embed_dim=16, mm_posemb_size=8, output_proj_dims=16)
    else:
        text |= dict(num_kv_shared_layers=1, hidden_size_per_layer_input=4, vocab_size_per_layer_input=WORDS)
        vision = dict(SIZES, num_key_value_heads=2, head_dim=8, patch_size=4)
        vision |= dict(pooling_kernel_size=2, position_embedding_size=8)
    side, width = (2, 8) if unified else (1, 4)  # rows of cells, or of patches
    grids = [(height // side, width // side) for height, width in GRIDS]
    longest = max(height * width for height, width in grids)
    places = torch.full((len(grids), longest, 2), -1)
    for i, (height, columns) in enumerate(grids):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(columns), indexing="ij")
        places[i, : height * columns] = torch.stack([x, y], dim=-1).flatten(0, 1)
    ids = dict(image_token_id=IMAGE, video_token_id=VIDEO, audio_token_id=35)
    changes = _changes(vision, text, audio_config=None, **ids)
    inputs = _prompt([[[12], [8]], [[4]]])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).long()
    inputs["pixel_values"] = torch.rand(len(grids), longest, 3 * width**2, generator=numbers)
    return changes, {**inputs, "image_position_ids": places}


def _pixtral(config, numbers: torch.Generator) -> tuple[dict, dict]:
    sizes = 4 * torch.tensor(GRIDS)
    pixels = _pixels(numbers, 3, 3, 32, 32)  # padded to the largest
    return dict(VISION, image_size=32), {"pixel_values": pixels, "image_sizes": sizes}


def _mistral3(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision, inputs = _pixtral(config.vision_config, numbers)
    vision["model_type"] = config.vision_config.model_type
    changes = _changes(vision, _text(config), spatial_merge_size=2)
    changes["image_token_index" if config.model_type == "mistral3" else "image_token_id"] = IMAGE
    if config.model_type == "mistral3":
        changes["text_config"]["sliding_window"] = None
        return changes, {**_prompt([[[4] * 3, [2] * 4], [[2] * 2]]), **inputs}  # a token after every row
    return changes, {**_prompt([[[12], [8]], [[4]]]), **inputs}


def _lfm2_vl(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(SIZES, model_type=config.vision_config.model_type, num_patches=36, patch_size=4)
    text = _text(config, layer_types=["conv", "full_attention"], block_multiple_of=8)
    sizes = dict(downsample_factor=2, projector_hidden_size=16)
    changes = _changes(vision, text, image_token_id=IMAGE, **sizes)
    inputs = _prompt([[[12], [8]], [[4]]])
    inputs["spatial_shapes"] = torch.tensor(GRIDS)
    counts = inputs["spatial_shapes"].prod(dim=-1)
    inputs["pixel_values"] = _pixels(numbers, 3, 48, 48)
    inputs["pixel_attention_mask"] = (torch.arange(48) < counts[:, None]).long()
    return changes, inputs


def _perception_lm(config, numbers: torch.Generator) -> tuple[dict, dict]:
    # CLIP in place of a tower of timm, which is an extra package: it has a class token in front as well
    vision = CLIPVisionConfig(**VISION, model_args={"embed_dim": 16})
    changes = _changes(vision, _text(config), projector_pooling_ratio=2)
    changes |= dict(image_token_id=IMAGE, video_token_id=VIDEO)
    return changes, {**_prompt([[[18], [18]], [[18]]]), "pixel_values": _pixels(numbers, 3, 2, 3, 24, 24)}


def _got_ocr2(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, output_channels=16, mlp_dim=32, window_size=4, global_attn_indexes=[1])
    changes = _changes(vision, _text(config), image_token_index=IMAGE)
    return changes, {**_prompt([[[4], [4]], [[4]]]), "pixel_values": _pixels(numbers, 3, 3, 24, 24)}


def _granite4_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    kind = config.vision_config.model_type
    vision = dict(VISION, num_hidden_layers=3, model_type=kind, hidden_size=64)  # for a head in the projector
    former = dict(SIZES, hidden_size=64, encoder_hidden_size=64, model_type="blip_2_qformer")
    text = _text(config, model_type="granite4_vision_text", num_hidden_layers=4, embedding_multiplier=2.0)
    del text["head_dim"]
    changes = _changes(vision, text, qformer_config=former, downsample_rate="1/2", image_token_index=IMAGE)
    changes |= dict(image_grid_pinpoints=[[24, 48], [48, 24]], deepstack_layer_map=[[-2, 0], [-1, 1]])
    changes |= dict(spatial_target_layers=[2, 3])
    changes["vision_feature_select_strategy"] = "default" if kind == "clip_vision_model" else "full"
    inputs = _prompt([[[9 + 3 * 7], [9 + 6 * 4]], [[9 + 6 * 4]]])  # a newline after every row of crops
    inputs["image_sizes"] = torch.tensor([[24, 48], [48, 24], [48, 24]])
    return changes, {**inputs, "pixel_values": _pixels(numbers, 3, 3, 3, 24, 24)}


RECIPES: dict[str, Callable] = {  # by the config's model_type
    "aya_vision": _cohere2_vision,
    "cohere2_vision": _cohere2_vision,
    "gemma3": _gemma3,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4,
    "got_ocr2": _got_ocr2,
    "granite4_vision": _granite4_vision,
    "granite_docling": _granite_docling,
    "idefics3": _idefics3,
    "idefics3_vision": _vision,
    "internvl": _internvl,
    "internvl_vision": _vision,
    "lfm2_vl": _lfm2_vl,
    "lighton_ocr": _mistral3,
    "llama4": _llama4,
    "llama4_vision_model": _vision,
    "mistral3": _mistral3,
    "ovis2": _ovis2,
    "perception_lm": _perception_lm,
    "pixtral": _pixtral,
    "qianfan_ocr": _internvl,
    "smolvlm": _idefics3,
    "smolvlm_vision": _vision,
}
