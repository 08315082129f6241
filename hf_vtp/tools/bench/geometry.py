"""Models by the numbers of their config, so that random weights need no download."""

from __future__ import annotations

from transformers import AutoConfig, PreTrainedConfig

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


def llava(vision: tuple[int, ...], patch_size: int, image_size: int, text: tuple[int, ...]) -> dict:
    """Arguments of LlavaConfig: a CLIP tower (width, layers, heads, MLP) and a Llama by SIZES."""
    width, layers, heads, mlp = vision
    return {
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": mlp,
            "patch_size": patch_size,
            "image_size": image_size,
        },
        "text_config": {
            "model_type": "llama",
            **dict(zip(SIZES, text, strict=True)),
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        },
        "image_token_index": min(32000, text[-1] - 1),
        "image_seq_length": (image_size // patch_size) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def qwen2_5_vl(
    vision: dict, text: tuple[int, ...], key_value_heads: int, mrope_section: list[int], tied: bool
) -> dict:
    """Arguments of Qwen2_5_VLConfig: what its vision_config does not share with others, a Qwen2 by SIZES."""
    vocab = text[-1]
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    first = 151652 if vocab > 151656 else vocab - len(names)
    return {
        "vision_config": {
            **{"patch_size": 14, "window_size": 112, "spatial_merge_size": 2, "temporal_patch_size": 2},
            **vision,
            "out_hidden_size": text[0],
        },
        "text_config": {
            **dict(zip(SIZES, text, strict=True)),
            "num_key_value_heads": key_value_heads,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1000000.0,
                "mrope_section": mrope_section,
            },
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": tied,
        },
        **{name: first + i for i, name in enumerate(names)},
        "tie_word_embeddings": tied,
    }


def qwen_tower(width: int, depth: int, heads: int, mlp: int, fullatt: list[int]) -> dict:
    """Arguments of Qwen2_5_VLVisionConfig; `fullatt` are the blocks that see the whole image."""
    return {
        "hidden_size": width,
        "depth": depth,
        "num_heads": heads,
        "intermediate_size": mlp,
        "fullatt_block_indexes": fullatt,
    }


OF_7B_AND_3B = qwen_tower(1280, 32, 16, 3420, [7, 15, 23, 31])
TINY_QWEN = {**qwen_tower(32, 4, 2, 48, [1, 3]), "patch_size": 4, "window_size": 16}


def tower(width: int, layers: int, patch_size: int, image_size: int, **others) -> dict:
    """Arguments of a ViT's config; unless `others` say so, heads are 64 wide, MLPs four times the width."""
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "patch_size": patch_size,
        "image_size": image_size,
        **others,
    }


def dinov2(width: int, layers: int, **others) -> dict:
    """Arguments of Dinov2Config, at the size that its image processor crops to."""
    whole = tower(width, layers, 14, 224, **others)
    return {name: value for name, value in whole.items() if name != "intermediate_size"}


GEOMETRIES = {  # by model_type and name; the small ones are for CPUs, the tiny ones for tests
    "clip_vision_model": {
        "openai/clip-vit-base-patch32": tower(768, 12, 32, 224, projection_dim=512),
        "openai/clip-vit-base-patch16": tower(768, 12, 16, 224, projection_dim=512),
        "openai/clip-vit-large-patch14": tower(1024, 24, 14, 224, projection_dim=768),
        "openai/clip-vit-large-patch14-336": tower(1024, 24, 14, 336, projection_dim=768),
    },
    "siglip_vision_model": {
        "google/siglip-base-patch16-224": tower(768, 12, 16, 224),
        "google/siglip-large-patch16-256": tower(1024, 24, 16, 256),
        "google/siglip-so400m-patch14-384": tower(
            1152, 27, 14, 384, num_attention_heads=16, intermediate_size=4304
        ),
    },
    "siglip2_vision_model": {"google/siglip2-base-patch16-naflex": tower(768, 12, 16, 256, num_patches=256)},
    "dinov2": {
        "facebook/dinov2-small": dinov2(384, 12),
        "facebook/dinov2-base": dinov2(768, 12),
        "facebook/dinov2-large": dinov2(1024, 24),
    },
    "dinov2_with_registers": {"facebook/dinov2-with-registers-base": dinov2(768, 12, num_register_tokens=4)},
    "dinov3_vit": {
        "facebook/dinov3-vitb16-pretrain-lvd1689m": tower(768, 12, 16, 224, num_register_tokens=4)
    },
    "vit": {
        "google/vit-base-patch16-224": tower(768, 12, 16, 224),
        "facebook/deit-tiny-patch16-224": tower(192, 12, 16, 224),
        "facebook/deit-small-patch16-224": tower(384, 12, 16, 224),
    },
    "deit": {
        "facebook/deit-tiny-distilled-patch16-224": tower(192, 12, 16, 224),
        "facebook/deit-base-distilled-patch16-224": tower(768, 12, 16, 224),
    },
    "llava": {
        "llava-hf/llava-1.5-7b-hf": llava((1024, 24, 16, 4096), 14, 336, (4096, 32, 32, 11008, 32064)),
        "llava-hf/llava-1.5-13b-hf": llava((1024, 24, 16, 4096), 14, 336, (5120, 40, 40, 13824, 32064)),
        "llava-small": llava((384, 12, 6, 1536), 14, 336, (768, 8, 12, 2048, 32064)),
        "llava-tiny": llava((32, 4, 2, 64), 8, 48, (32, 3, 4, 64, 128)),
    },
    "qwen2_5_vl": {
        "Qwen/Qwen2.5-VL-7B-Instruct": qwen2_5_vl(
            OF_7B_AND_3B, (3584, 28, 28, 18944, 152064), 4, [16, 24, 24], tied=False
        ),
        "Qwen/Qwen2.5-VL-3B-Instruct": qwen2_5_vl(
            OF_7B_AND_3B, (2048, 36, 16, 11008, 151936), 2, [16, 24, 24], tied=True
        ),
        # as in the large ones, one in four of the blocks that see the whole image runs before tokens leave
        "qwen2_5_vl-small": qwen2_5_vl(
            qwen_tower(128, 8, 2, 344, [1, 3, 5, 7]), (512, 6, 8, 1408, 32064), 2, [8, 12, 12], tied=False
        ),
        "qwen2_5_vl-tiny": qwen2_5_vl(TINY_QWEN, (32, 3, 4, 64, 128), 2, [1, 1, 2], tied=False),
    },
}


def named_config(name: str) -> PreTrainedConfig | None:
    """The config of a geometry, by its name with or without the organisation's; None where there is none."""
    for model_type, named in GEOMETRIES.items():
        for whole, numbers in named.items():
            if name in (whole, whole.rpartition("/")[2]):
                return AutoConfig.for_model(model_type, **numbers)
    return None


def known() -> list[str]:
    """The names of all geometries."""
    return [name for named in GEOMETRIES.values() for name in named]
