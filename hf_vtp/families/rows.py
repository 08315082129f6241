"""Every supported family: one row each. A row of one's own is added the same way, from anywhere."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..towers.packed import PackedTower
from ..towers.padded import PaddedTower
from ..towers.rows import Grid, TowerRow
from ..towers.states import PerImage
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


register_tower("clip_vision_model", CLIP, "clip")
register_tower("metaclip_2_vision_model", CLIP, "metaclip_2")
register_tower("altclip_vision_model", CLIP, "altclip")
register_tower("chinese_clip_vision_model", CLIP, "chinese_clip")
register_tower("mlcd_vision_model", replace(CLIP, rope=PerImage))
register_tower("siglip_vision_model", replace(CLIP, prefix=0, head="head"), "siglip")
register_tower(
    "siglip2_vision_model",
    replace(CLIP, prefix=0, grids=grids_of_shapes, head="head", pattern=PaddedTower),
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
register_tower("internvl_vision", TowerRow("encoder.layer", "attention", "q_norm k_norm v_proj"))
REFUSED["beit"] = "each of its layers adds a relative position bias of its own, made for every patch"
REFUSED["timm_wrapper"] = (
    "timm's towers pool inside the model, call their blocks without Transformers' arguments and lay hidden "
    "states on the grid again; load a Transformers checkpoint of the same architecture"
)
register_tower(
    ("qwen2_5_vl_vision", "qwen2_vl_vision"),
    TowerRow("blocks", "attn", "qkv", 0, alone=False, pattern=PackedTower),
)

# Vision-language models: where their tower and projector are, from the module with get_image_features


def first_full_block(depth: int, module: nn.Module) -> int:
    """The first block that sees a whole frame, where others see windows; else a quarter of the depth."""
    full = [i for i in getattr(module, "fullatt_block_indexes", []) if i < depth - 1]
    return min(full, default=depth // 4)


register_family("llava", FamilyRow("vision_tower", "multi_modal_projector"))
register_family(("qwen2_5_vl", "qwen2_vl"), FamilyRow("visual", default_layer=first_full_block))
