"""Recipes for a random vision tower of two layers of every family, and for the models around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PAD, WORDS = 0, 40
SIZES = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(SIZES, image_size=16, patch_size=4)  # 16 patches
NAFLEX = [[4, 8], [6, 4], [5, 5]]  # of images, in patches; padded to 32


def _pixels(numbers: torch.Generator, width: int = 16) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 16, width, generator=numbers)}


# Towers that end in one row an image, and the models of an image and a text around them


def _clip_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return dict(VISION, projection_dim=8), _pixels(numbers)


def _head(config) -> dict[str, bool]:
    # 5.12 has the field only where a checkpoint sets it
    return {"vision_use_head": getattr(config, "vision_use_head", True)}


def _siglip_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return {**VISION, **_head(config)}, _pixels(numbers)


def _siglip2_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    grids = torch.tensor(NAFLEX)
    mask = (torch.arange(32) < grids.prod(-1, keepdim=True)).int()
    pixels = torch.randn(3, 32, 48, generator=numbers) * mask.unsqueeze(-1)
    changes = dict(SIZES, patch_size=4, num_patches=16, **_head(config))
    return changes, {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": grids}


def _aimv2_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = dict(VISION, use_head=config.use_head, is_native=config.is_native)
    return changes, _pixels(numbers, 24 if config.is_native else 16)


def _dual(vision: Callable, **text: object) -> Callable:
    """A recipe of a model that puts an image and a text into one space."""
    words = dict(SIZES, vocab_size=WORDS, max_position_embeddings=16, **text)
    words |= dict(pad_token_id=PAD, bos_token_id=1, eos_token_id=2)

    def recipe(config, numbers: torch.Generator) -> tuple[dict, dict]:
        changes, inputs = vision(config.vision_config, numbers)
        # no attention_mask: the classifiers of these families hand what is for the text to the images
        inputs["input_ids"] = torch.tensor([[1, 5, 7, 2], [1, 8, 6, 2]])
        both = {"text_config": words, "vision_config": changes}
        return both | ({"projection_dim": 8} if hasattr(config, "projection_dim") else {}), inputs

    return recipe


# Towers for one set of classes


def _vit(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return dict(VISION, encoder_stride=4), _pixels(numbers)


def _ijepa(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return VISION, _pixels(numbers)


def _beit(config, numbers: torch.Generator) -> tuple[dict, dict]:
    bias = ("use_relative_position_bias", "use_shared_relative_position_bias")
    taken = {name: getattr(config, name) for name in (*bias, "use_mean_pooling")}
    if not taken[bias[1]]:  # the defaults have no positions at all
        taken[bias[0]] = True
    taken |= dict(vocab_size=WORDS, layer_scale_init_value=1.0, drop_path_rate=0.0)
    return {**VISION, **taken}, _pixels(numbers, 24)


def _dino(config, numbers: torch.Generator) -> tuple[dict, dict]:
    taken = {"num_register_tokens": getattr(config, "num_register_tokens", None)}
    if config.model_type == "dinov3_vit":
        taken |= dict(use_gated_mlp=config.use_gated_mlp)
    else:
        taken |= dict(use_swiglu_ffn=config.use_swiglu_ffn, mlp_ratio=2, intermediate_size=None)
    changes = {name: x for name, x in {**VISION, **taken}.items() if x is not None}
    return changes, _pixels(numbers, 24)


# Towers that language models read


def _internvl_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    changes = dict(VISION, layer_scale_init_value=1.0, image_size=[16, 16], patch_size=[4, 4])
    taken = ("use_qk_norm", "norm_type", "attention_bias", "use_mean_pooling")
    return changes | {name: getattr(config, name) for name in taken}, _pixels(numbers, 24)


def _mlcd(config, numbers: torch.Generator) -> tuple[dict, dict]:
    return VISION, _pixels(numbers, 24)


def _pixtral(config, numbers: torch.Generator) -> tuple[dict, dict]:
    sizes = torch.tensor(NAFLEX) * 4
    pixels = torch.zeros(3, 3, 24, 32)
    for image, (height, width) in zip(pixels, sizes.tolist(), strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=numbers)
    return dict(VISION, image_size=32), {"pixel_values": pixels, "image_sizes": sizes}


def _idefics_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    mask = torch.ones(2, 4, 8, dtype=torch.bool)
    mask[1, :, 6:] = False  # the second image is narrower
    pixels = torch.randn(2, 3, 16, 32, generator=numbers)
    pixels[1, ..., 24:] = 0
    return VISION, {"pixel_values": pixels, "patch_attention_mask": mask}


def _llama4_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    # the adapter's first layer takes a cell of 2 × 2 patches, and names its width after the layers' MLP
    changes = dict(VISION, intermediate_size=64, pixel_shuffle_ratio=0.5)
    widths = ("vision_output_dim", "projector_input_dim", "projector_output_dim")
    return changes | dict.fromkeys(widths, 16), _pixels(numbers)


def _ovis2_vision(config, numbers: torch.Generator) -> tuple[dict, dict]:
    taken = dict(hidden_stride=config.hidden_stride, tokenize_function=config.tokenize_function)
    return dict(VISION, vocab_size=24, num_visual_indicator_tokens=5, **taken), _pixels(numbers)


_siglip = _dual(_siglip_vision, projection_size=16)  # what the head of the images gives
_roberta = dict(type_vocab_size=1, hidden_dropout_prob=0.0)

RECIPES: dict[str, Callable] = {  # by the config's model_type
    "aimv2": _dual(_aimv2_vision),
    "aimv2_vision_model": _aimv2_vision,
    "altclip": _dual(_clip_vision, project_dim=8, **_roberta),
    "altclip_vision_model": _clip_vision,
    "beit": _beit,
    "chinese_clip": _dual(_clip_vision, **_roberta),
    "chinese_clip_vision_model": _clip_vision,
    "clip": _dual(_clip_vision, projection_dim=8),
    "clip_vision_model": _clip_vision,
    "deit": _vit,
    "dinov2": _dino,
    "dinov2_with_registers": _dino,
    "dinov3_vit": _dino,
    "idefics2_vision": _idefics_vision,
    "idefics3_vision": _idefics_vision,
    "ijepa": _ijepa,
    "internvl_vision": _internvl_vision,
    "llama4_vision_model": _llama4_vision,
    "metaclip_2": _dual(_clip_vision, projection_dim=8),
    "metaclip_2_vision_model": _clip_vision,
    "mlcd_vision_model": _mlcd,
    "ovis2_vision": _ovis2_vision,
    "pixtral": _pixtral,
    "siglip": _siglip,
    "siglip_vision_model": _siglip_vision,
    "siglip2": _dual(_siglip2_vision, projection_size=16),
    "siglip2_vision_model": _siglip2_vision,
    "smolvlm_vision": _idefics_vision,
    "vit": _vit,
}
