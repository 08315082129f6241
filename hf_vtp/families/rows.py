"""Every supported family: one row each. A row of one's own is added the same way, from anywhere."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..towers.rows import TowerRow
from ..towers.units import PackedRow, downsampled, of_merge_sizes, of_two_frames, squares
from .table import FamilyRow, register_family, register_tower

# Vision towers: where layers are, and a layer's attention; the last arguments are roots around the tower

register_tower("clip_vision_model", TowerRow("encoder.layers", "self_attn"), "clip")

# Vision-language models: where their tower and projector are, from the module with get_image_features

# Projectors that work row by row
register_family(("llava", "vipllava"), FamilyRow("vision_tower", "multi_modal_projector"))
register_family("llava_next", FamilyRow("vision_tower", "multi_modal_projector", tiles=True))
register_family("paligemma", FamilyRow("vision_tower", "multi_modal_projector", first_position=1))
register_tower("janus_vision_model", TowerRow("encoder.layers", "self_attn", prefix=0, alone=False))
register_family(("deepseek_vl", "janus"), FamilyRow("vision_model", "aligner"))

# Patches of all images in one sequence


def first_full_block(depth: int, module: nn.Module) -> int:
    """The first block that sees a whole frame, where others see windows; else a quarter of the depth."""
    full = [i for i in getattr(module, "fullatt_block_indexes", []) if i < depth - 1]
    return min(full, default=depth // 4)


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

packed = FamilyRow("visual", default_layer=first_full_block)
register_family(("qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe"), packed)
register_family(("glm46v", "glm4v", "glm4v_moe", "glm_ocr"), replace(packed, video_token="image_token_id"))
register_family(("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"), packed)
whole = replace(
    packed, tiles=True
)  # their rows are counted, and text is compared with them, after the features
register_family("ernie4_5_vl_moe", replace(whole, tower="vision_tower", projector="resampler_model"))
register_family("paddleocr_vl", replace(whole, projector="projector"))
register_family("video_llama_3", replace(whole, tower="vision_model", projector="projector"))
