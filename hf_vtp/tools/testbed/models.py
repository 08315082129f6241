"""The three models in their stock Transformers classes, with new weights."""

from __future__ import annotations

from transformers import (
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from .scenes import IMAGE_SIZE
from .tokenizer import EOS, IMAGE, PAD, VIDEO, VISION_END, VISION_START, VOCABULARY

WIDTH, HEADS, PATCH, MERGE = 128, 4, 8, 2
TOKENS = (IMAGE_SIZE // PATCH) ** 2  # 144 patch tokens of a picture of the usual size
ENDS = dict(pad_token_id=VOCABULARY[PAD], eos_token_id=VOCABULARY[EOS], bos_token_id=None)
VISION = dict(
    hidden_size=WIDTH,
    intermediate_size=4 * WIDTH,
    num_hidden_layers=6,
    num_attention_heads=HEADS,
    image_size=IMAGE_SIZE,
    patch_size=PATCH,
    projection_dim=WIDTH,
)
LANGUAGE = dict(
    vocab_size=len(VOCABULARY),
    hidden_size=WIDTH,
    intermediate_size=320,
    num_hidden_layers=4,
    num_attention_heads=HEADS,
    num_key_value_heads=HEADS,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
    **ENDS,
)


def new_clip() -> CLIPModel:
    """CLIP: six vision layers, two text layers."""
    text = dict(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        vocab_size=len(VOCABULARY),
        max_position_embeddings=24,
        projection_dim=WIDTH,
        **ENDS,
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=WIDTH))


def new_llava() -> LlavaForConditionalGeneration:
    """LLaVA: that CLIP's vision tower, read before its last layer, and a Llama of four layers."""
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config=LlamaConfig(**LANGUAGE),
        image_token_id=VOCABULARY[IMAGE],
        image_seq_length=TOKENS,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config)


def new_qwen2_5_vl() -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL: six vision blocks, two of them over the whole picture, windows of 8 × 8 patches, m-RoPE."""
    vision = dict(
        depth=6,
        hidden_size=WIDTH,
        intermediate_size=256,
        num_heads=HEADS,
        patch_size=PATCH,
        spatial_merge_size=MERGE,
        window_size=8 * PATCH,
        fullatt_block_indexes=[2, 5],
        out_hidden_size=WIDTH,
    )
    text = dict(LANGUAGE, rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[4, 6, 6]))
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=VOCABULARY[IMAGE],
        video_token_id=VOCABULARY[VIDEO],
        vision_start_token_id=VOCABULARY[VISION_START],
        vision_end_token_id=VOCABULARY[VISION_END],
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


NEW = {"clip": new_clip, "llava": new_llava, "qwen2_5_vl": new_qwen2_5_vl}
