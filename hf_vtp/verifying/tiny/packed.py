"""Tiny recipes: families whose tower takes the patches of all images in one packed sequence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .prompts import END, IMAGE, PAD, START, VIDEO, WORDS, counted

AUDIO = 34
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
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
PATCHES = sum(t * h * w for t, h, w in GRIDS)
UNITS = [[8, 8], [4]]  # of the images of each row
ROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2])
VISION = dict(depth=2, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
OUT = dict(hidden_size=16, out_hidden_size=16, intermediate_size=32)
WINDOWS = dict(window_size=16, fullatt_block_indexes=[1])
DEEPSTACK = dict(depth=3, deepstack_visual_indexes=[0, 1], num_position_embeddings=16)
QWEN = dict(image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END)
GLM = dict(
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    image_start_token_id=START,
    image_end_token_id=END,
    video_start_token_id=35,
    video_end_token_id=36,
)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
AUDIO_TOWER = dict(
    d_model=16,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_dim=16,
    output_dim=16,
    num_mel_bins=8,
    n_window=4,
    max_source_positions=32,
)


def _qwen2_vl(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, embed_dim=16, hidden_size=16, mlp_ratio=2)
    return dict(vision_config=vision, text_config=dict(TEXT, rope_parameters=ROPE), **QWEN), _inputs(numbers)


def _qwen2_5_vl(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(VISION, **OUT, **WINDOWS)
    return dict(vision_config=vision, text_config=dict(TEXT, rope_parameters=ROPE), **QWEN), _inputs(numbers)


def _qwen3_vl(config, numbers: torch.Generator) -> tuple[dict, dict]:
    rope = dict(ROPE, mrope_section=[2, 1, 1])  # interleaved: every third frequency
    text = dict(TEXT, num_hidden_layers=3, head_dim=8, rope_parameters=rope)
    if "moe" in config.model_type:
        text |= EXPERTS
    return dict(vision_config=dict(VISION, **OUT) | DEEPSTACK, text_config=text, **QWEN), _inputs(numbers)


def _qwen2_5_omni_thinker(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = dict(
        vision_config=dict(VISION, **OUT, **WINDOWS),
        audio_config=AUDIO_TOWER,
        text_config=dict(TEXT, rope_parameters=ROPE),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        audio_token_index=AUDIO,
        audio_start_token_id=35,
        audio_end_token_id=36,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    return changes, _started(_inputs(numbers))


def _qwen3_omni_moe_thinker(config, numbers: torch.Generator) -> tuple[dict, dict]:
    audio = {**AUDIO_TOWER, "downsample_hidden_size": 4}
    changes, inputs = _qwen3_vl(config, numbers)
    ids = dict(audio_token_id=AUDIO, audio_start_token_id=35)
    return dict(changes, audio_config=audio, **ids), _started(inputs)


def _qwen3_5(config, numbers: torch.Generator) -> tuple[dict, dict]:
    rope = dict(ROPE, mrope_section=[2, 1, 1], partial_rotary_factor=0.5)
    text = dict(TEXT, num_hidden_layers=4, head_dim=16, rope_parameters=rope)
    text["layer_types"] = ["linear_attention", "full_attention"] * 2
    text |= dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2)
    text |= dict(linear_num_value_heads=4, linear_conv_kernel_dim=4)
    if "moe" in config.model_type:
        text |= dict(EXPERTS, shared_expert_intermediate_size=16)
    vision = dict(VISION, **OUT, num_position_embeddings=16)
    return dict(vision_config=vision, text_config=text, **QWEN), _inputs(numbers)


def _glm4v(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = {"vision_config": dict(VISION, **OUT, image_size=16), "text_config": _glm_text(config), **GLM}
    if config.model_type == "glm46v":  # takes the towers of its kin
        for name in ("vision_config", "text_config"):
            changes[name] = dict(changes[name], model_type=getattr(config, name).model_type)
    return changes, _inputs(numbers)


def _glm_text(config) -> dict:
    text = dict(TEXT, head_dim=8, rope_parameters=dict(ROPE, partial_rotary_factor=1.0))
    if "moe" in config.text_config.model_type:
        text |= dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, n_shared_experts=1)
    return text


def _video_llama_3(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = {
        "vision_config": dict(SIZES, patch_size=4),
        "text_config": dict(TEXT, model_type=config.text_config.model_type),
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
    }
    inputs = _inputs(numbers, width=48)
    del inputs["mm_token_type_ids"]
    inputs["image_merge_sizes"] = torch.tensor([2, 2, 2])
    return changes, inputs


def _ernie4_5_vl_moe(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(depth=2, num_heads=2, hidden_size=16, intermediate_size=32)
    vision |= dict(patch_size=4, spatial_merge_size=2, temporal_merge_size=2)
    text = dict(TEXT, rope_parameters=ROPE)
    text |= dict(moe_intermediate_size=[16, 8], moe_k=2, moe_num_experts=4, moe_num_shared_experts=1)
    text |= dict(mlp_layer_types=["dense", "sparse"])
    inputs = _inputs(numbers, width=48)
    ids = inputs["input_ids"]
    inputs["moe_mm_token_type_ids"] = torch.isin(ids, torch.tensor([IMAGE, START, END])).int()
    return dict(vision_config=vision, text_config=text, **GLM), inputs


def _paddleocr_vl(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(SIZES, image_size=16, patch_size=4, spatial_merge_size=2)
    text = dict(TEXT, head_dim=8, rope_parameters=ROPE)
    inputs = _inputs(numbers)
    inputs["pixel_values"] = torch.randn(PATCHES, 3, 4, 4, generator=numbers)
    return dict(vision_config=vision, text_config=text, **QWEN), inputs


def _kimi_k25(config, numbers: torch.Generator) -> tuple[dict, dict]:
    vision = dict(SIZES, patch_size=4, pos_emb_height=4, pos_emb_width=4, pos_emb_time=4)
    text = dict(TEXT, model_type=config.text_config.model_type)
    if text["model_type"] == "deepseek_v3":
        text |= dict(q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8)
        text |= dict(n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2)
        text |= dict(moe_intermediate_size=16, first_k_dense_replace=1, n_shared_experts=1)
    inputs = _inputs(numbers)
    inputs["pixel_values"] = torch.randn(PATCHES, 3, 4, 4, generator=numbers)
    del inputs["mm_token_type_ids"]
    sizes = dict(projection_hidden_size=16, tie_word_embeddings=False)
    return dict(vision_config=vision, text_config=text, **sizes, **QWEN), inputs


def _inputs(numbers: torch.Generator, width: int = 96) -> dict[str, Tensor]:
    inputs = counted(UNITS)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    inputs["image_grid_thw"] = torch.tensor(GRIDS)
    inputs["pixel_values"] = torch.randn(PATCHES, width, generator=numbers)
    return inputs


def _started(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A start in front of the first image too: this family counts images by these."""
    del inputs["mm_token_type_ids"]
    started = counted(UNITS, first=[START])
    return {**inputs, **started}


RECIPES: dict[str, Callable] = {  # by the config's model_type
    "ernie4_5_vl_moe": _ernie4_5_vl_moe,
    "glm46v": _glm4v,
    "glm4v": _glm4v,
    "glm4v_moe": _glm4v,
    "glm_ocr": _glm4v,
    "kimi_k25": _kimi_k25,
    "paddleocr_vl": _paddleocr_vl,
    "qwen2_5_omni_thinker": _qwen2_5_omni_thinker,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen2_vl": _qwen2_vl,
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": _qwen3_5,
    "qwen3_omni_moe_thinker": _qwen3_omni_moe_thinker,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl,
    "video_llama_3": _video_llama_3,
}
