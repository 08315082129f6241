"""Tiny recipes: families that are pruned after `get_image_features` only, whatever their tower."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import AutoModel, CLIPVisionConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nVisionConfig

from .prompts import END, IMAGE, PAD, START, VIDEO, WORDS, counted

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


def _florence2(config, numbers: torch.Generator) -> tuple[dict, dict]:
    two = dict(depths=[1, 1], patch_size=[7, 3], patch_stride=[4, 2], patch_padding=[3, 1])
    two |= dict(patch_prenorm=[False, True], embed_dim=[8, 16], num_heads=[2, 2], num_groups=[2, 2])
    bart = dict(d_model=16, vocab_size=WORDS, max_position_embeddings=128, pad_token_id=PAD, bos_token_id=1)
    bart |= dict(eos_token_id=None, forced_eos_token_id=None, decoder_start_token_id=2)
    for side in ("encoder", "decoder"):
        bart |= {f"{side}_layers": 2, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 32}
    changes = {
        "vision_config": dict(two, window_size=4, projection_dim=16, drop_path_rate=0.0),
        "text_config": dict(bart, model_type=config.text_config.model_type, tie_word_embeddings=False),
        "image_token_id": IMAGE,
        "tie_word_embeddings": False,
    }
    picture = [IMAGE] * 17  # 4 × 4 patches after their mean
    rows = [[*picture, 1, 5, 6, 7, 2], [*picture, 1, 8, 2, PAD, PAD]]  # one image each, padded on the right
    ids = torch.tensor(rows)
    inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    return changes, {**inputs, "pixel_values": torch.randn(2, 3, 32, 32, generator=numbers)}


def _perception_lm(config, numbers: torch.Generator) -> tuple[dict, dict]:
    tower = CLIPVisionConfig(**SIZES, image_size=16, patch_size=4, model_args={"embed_dim": 16})
    changes = {
        "vision_config": tower,  # timm may be missing; an object, since 5.12 reads a dict as timm's
        "text_config": dict(TEXT, model_type=config.text_config.model_type),
        "projector_pooling_ratio": 2,
        "vision_use_cls_token": True,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
    }
    pixels = torch.randn(3, 3, 3, 16, 16, generator=numbers)  # a thumbnail and two tiles each
    return changes, {**counted([[12, 12], [12]]), "pixel_values": pixels}


def _fast_vlm(config, numbers: torch.Generator) -> tuple[dict, dict]:
    # Stands in for timm's FastViT, which is no dependency: both give [B, C, H, W].
    tower = dict(model_type="convnext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, hidden_size=16)
    changes = {
        "vision_config": tower,
        "text_config": dict(TEXT, model_type=config.text_config.model_type),
        "image_token_index": IMAGE,
        "image_seq_length": 16,
    }
    pixels = torch.randn(3, 3, 32, 32, generator=numbers)
    return changes, {**counted([[16, 16], [16]]), "pixel_values": pixels}


def _gemma3n(config, numbers: torch.Generator) -> tuple[dict, dict]:
    text = dict(TEXT, num_hidden_layers=4, num_kv_shared_layers=2, head_dim=8, sliding_window=64)
    text |= dict(layer_types=["sliding_attention", "full_attention"] * 2)
    text |= dict(vocab_size_per_layer_input=IMAGE, hidden_size_per_layer_input=4, laurel_rank=4)
    text |= dict(altup_num_inputs=2, activation_sparsity_pattern=[0.0] * 4)
    text["altup_correct_scale"] = False  # a scale of zeros would hide the inputs of each layer
    audio = dict(hidden_size=16, vocab_size=5, vocab_offset=35, conf_num_attention_heads=2)
    audio |= dict(conf_num_hidden_layers=1, input_feat_size=16, sscp_conv_channel_size=[4, 4])
    AutoModel.register(_ConvConfig, _Conv, exist_ok=True)
    changes = {
        "vision_config": _ConvConfig(hidden_size=16, vocab_size=5, vocab_offset=IMAGE),
        "audio_config": audio,
        "text_config": text,
        "vision_soft_tokens_per_image": 16,
        "boi_token_id": START,
        "eoi_token_id": END,
        "image_token_id": IMAGE,
        "audio_token_id": 36,
    }
    inputs = counted([[16, 16], [16]])
    inputs["token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    return changes, {**inputs, "pixel_values": torch.randn(3, 3, 16, 16, generator=numbers)}


class _ConvConfig(Gemma3nVisionConfig):
    """The family accepts no other config, and that one wants timm."""

    model_type = "tiny_conv"


class _Conv(PreTrainedModel):
    config_class = _ConvConfig

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, 4, stride=4)
        self.mix = nn.Conv2d(config.hidden_size, config.hidden_size, 3, padding=1)
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=self.mix(self.patches(pixel_values).relu()))


RECIPES: dict[str, Callable] = {  # by the config's model_type
    "fast_vlm": _fast_vlm,
    "florence2": _florence2,
    "gemma3n": _gemma3n,
    "perception_lm": _perception_lm,
}
