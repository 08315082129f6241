"""Every supported family: one row each. A row of one's own is added the same way, from anywhere."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..towers.joined import JoinedTower
from ..towers.padded import PaddedTower
from ..towers.rows import Grid, TowerRow, grids_of_pixels
from ..towers.states import PerHead, PerImage
from ..towers.units import PackedRow, downsampled, of_merge_sizes, of_two_frames, squares
from .table import REFUSED, FamilyRow, register_family, register_tower

# Vision towers: where layers are, and a layer's attention; the last arguments are roots around the tower

CLIP = TowerRow("encoder.layers", "self_attn")
VIT = TowerRow("layers", "attention")
DINOV2 = TowerRow("encoder.layer", "attention.attention|attention", "q_proj|query k_proj|key v_proj|value")


def registers(config: object) -> int:
    """[CLS] and registers."""
    return 1 + config.num_register_tokens


def grids_of_shapes(module: nn.Module, arguments: dict) -> list[Grid]:
    """Grids of images that come as patches, each of a size of its own."""
    return [(1, rows, columns) for rows, columns in arguments["spatial_shapes"].tolist()]


def grids_of_sizes(module: nn.Module, arguments: dict) -> list[Grid]:
    """Grids of images that were padded to the largest and come with the size of each."""
    if arguments.get("image_sizes") is None:
        return grids_of_pixels(module, arguments)
    patch = module.config.patch_size
    return [(1, int(height) // patch, int(width) // patch) for height, width in arguments["image_sizes"]]


register_tower("clip_vision_model", CLIP, "clip")
register_tower("metaclip_2_vision_model", CLIP, "metaclip_2")
register_tower("altclip_vision_model", CLIP, "altclip")
register_tower("chinese_clip_vision_model", CLIP, "chinese_clip")
register_tower("mlcd_vision_model", replace(CLIP, rope=PerImage))
register_tower("siglip_vision_model", replace(CLIP, prefix=0, head="head", norm="post_layernorm"), "siglip")
register_tower(
    "siglip2_vision_model",
    replace(CLIP, prefix=0, grids=grids_of_shapes, head="head", norm="post_layernorm", pattern=PaddedTower),
    "siglip2",
)
register_tower(("idefics2_vision", "idefics3_vision", "smolvlm_vision"), replace(CLIP, prefix=0, alone=False))
register_tower("aimv2_vision_model", TowerRow("encoder.layers", "attention", prefix=0, head="head"), "aimv2")
register_tower("vit", VIT)
register_tower("deit", replace(VIT, prefix=2))
register_tower("ijepa", replace(VIT, prefix=0))
register_tower("dinov2", DINOV2)
register_tower("dinov2_with_registers", replace(DINOV2, prefix=registers))
register_tower("dinov3_vit", TowerRow("model.layer", "attention", prefix=registers))
NORMED = {"projections": "q_norm k_norm v_proj", "linear": "q_proj k_proj v_proj"}
register_tower("internvl_vision", TowerRow("encoder.layer", "attention", **NORMED))
register_tower(
    "pixtral",
    TowerRow(
        "transformer.layers",
        "attention",
        prefix=0,
        grids=grids_of_sizes,
        rope=PerHead,
        alone=False,
        pattern=JoinedTower,
    ),
)
register_tower("qianfan_ocr_vision", TowerRow("layers", "attention", **NORMED, alone=False))
REFUSED["beit"] = "each of its layers adds a relative position bias of its own, made for every patch"
REFUSED["timm_wrapper"] = (
    "timm's towers pool inside the model, call their blocks without Transformers' arguments and lay hidden "
    "states on the grid again; load a Transformers checkpoint of the same architecture"
)
REFUSED["llama4"] = (
    "its get_image_features returns rows that are still to be projected, and Transformers 5.24.0 itself "
    "fails in its forward; needed is a row for its tower, whose [CLS] comes last"
)
register_tower(
    ("ovis2_vision", "Ovis2VisionConfig"),  # older releases give it no model_type
    TowerRow("encoder.layers", "attention", prefix=0, alone=False),
)

# Vision-language models: where their tower and projector are, from the module with get_image_features

# Projectors that work row by row
register_family(("llava", "vipllava"), FamilyRow("vision_tower", "multi_modal_projector"))
register_family("llava_next", FamilyRow("vision_tower", "multi_modal_projector", tiles=True))
register_family(  # its videos are pooled before the projector
    "llava_next_video",
    FamilyRow(
        "vision_tower",
        "multi_modal_projector",
        cell=lambda config: config.spatial_pool_stride,
        tiles=True,
    ),
)
register_family("paligemma", FamilyRow("vision_tower", "multi_modal_projector", first_position=1))
register_tower("janus_vision_model", replace(CLIP, prefix=0, norm="post_layernorm", alone=False))
register_family(("deepseek_vl", "janus"), FamilyRow("vision_model", "aligner"))

# Patches of all images in one sequence

register_tower(("qwen2_5_vl_vision", "qwen2_vl_vision", "qwen3_5_moe_vision", "qwen3_5_vision"), PackedRow())
register_tower(("qwen3_vl_moe_vision", "qwen3_vl_vision"), PackedRow(deepstack="deepstack_merger_list"))
register_tower(("glm4v_moe_vision", "glm4v_vision"), PackedRow(project=downsampled))
register_tower("qwen2_5_omni_vision_encoder", PackedRow(projections="q k v"))
register_tower("qwen3_omni_moe_vision_encoder", PackedRow(deepstack="merger_list"))
register_tower("glm_ocr_vision", PackedRow(norms="q_norm k_norm", project=downsampled))
# with a projector that needs the grid
separate = PackedRow(attention="self_attn", projections="q_proj k_proj v_proj", merger="")
register_tower("ernie4_5_vl_moe_vision", PackedRow(merger="", last="ln", units=of_two_frames))
register_tower(
    "paddleocr_vl_vision",
    replace(
        separate, layers="vision_model.encoder.layers", last="vision_model.post_layernorm", units=squares
    ),
)
register_tower(
    "video_llama_3_vision",
    replace(separate, layers="encoder.layers", last="post_layernorm", units=of_merge_sizes),
)

packed = FamilyRow("visual")
register_family(("qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe"), packed)
register_family(("glm46v", "glm4v", "glm4v_moe", "glm_ocr"), replace(packed, video_token="image_token_id"))
register_family(("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"), packed)
whole = replace(packed, tiles=True)  # rows are counted, and compared with text, after the features
register_family("ernie4_5_vl_moe", replace(whole, tower="vision_tower", projector="resampler_model"))
register_family("paddleocr_vl", replace(whole, projector="projector"))
register_family("video_llama_3", replace(whole, tower="vision_model", projector="projector"))

# Those whose projector makes one row of a cell of patches


def cell_of_pooling(config: object) -> int:
    """Patches along a side of what an average of patches is taken over."""
    patches = config.vision_config.image_size // config.vision_config.patch_size
    return patches // int(config.mm_tokens_per_image**0.5)


register_family(
    ("idefics3", "smolvlm"),
    FamilyRow("vision_model", "connector", cell=lambda config: config.scale_factor, tiles=True),
)
register_family(
    ("internvl", "qianfan_ocr"),
    FamilyRow(
        "vision_tower",
        "multi_modal_projector",
        cell=lambda config: round(1 / config.downsample_ratio),
        tiles=True,
    ),
)
register_family(
    ("cohere2_vision", "aya_vision", "lfm2_vl"),
    FamilyRow(
        "vision_tower", "multi_modal_projector", cell=lambda config: config.downsample_factor, tiles=True
    ),
)
register_family("gemma3", FamilyRow("vision_tower", "multi_modal_projector", cell=cell_of_pooling))
register_family(
    "ovis2",
    FamilyRow(
        "vision_tower.transformer",
        "visual_embeddings_table",
        cell=lambda config: config.vision_config.hidden_stride,
        tiles=True,
        reads_ids=True,
    ),
)
register_family(
    ("mistral3", "lighton_ocr"),
    FamilyRow(
        "vision_tower|vision_encoder",
        "multi_modal_projector|vision_projection",
        cell=lambda config: config.spatial_merge_size,
        tiles=True,
    ),
)

# Models whose prompt has no placeholder for each row of image features, by what would be needed

REFUSED |= dict.fromkeys(
    ("mllama", "idefics"),
    "its language model attends across to the images' states and no word of the prompt stands for them; "
    "needed is an adapter that narrows those states with their masks",
)
REFUSED |= dict.fromkeys(
    ("blip-2", "instructblip", "instructblipvideo"),
    "its queries are made of the image within forward, and get_image_features gives the tower's states; "
    "needed is a row for its tower",
)
REFUSED |= dict.fromkeys(
    ("kosmos-2", "kosmos-2.5"),
    "a mask (image_embeds_position_mask) says where its features go; needed is an adapter that condenses it",
)
REFUSED |= dict.fromkeys(
    ("chameleon", "emu3", "glm_image", "apertus1p5"),
    "its images are words of a codebook in the prompt itself; needed is a method for words",
)
REFUSED["fuyu"] = "one linear layer makes its features; needed is an adapter that condenses its patches"
REFUSED["phi4_multimodal"] = (
    "its embedding layer encodes images; needed is an adapter that takes them out of there"
)
REFUSED["granite4_vision"] = (
    "its features are only added within the language model; needed is an adapter that hands those on"
)
REFUSED["t5gemma2"] = "its encoder puts features in; needed is an encoder whose positions can be set"
REFUSED |= dict.fromkeys(
    ("modernvbert", "ultravbert", "neomme"),
    "its language model embeds both ways at once and keeps no cache; needed is an adapter without a cache",
)
