"""Every supported family: one row each. A row of one's own is added the same way, from anywhere."""

from __future__ import annotations

from torch import nn

from ..towers.packed import PackedTower
from ..towers.rows import TowerRow
from .table import FamilyRow, register_family, register_tower

# Vision towers: where layers are, and a layer's attention; the last arguments are roots around the tower

register_tower("clip_vision_model", TowerRow("encoder.layers", "self_attn"), "clip")
register_tower(
    ("qwen2_5_vl_vision", "qwen2_vl_vision"),
    TowerRow("blocks", "attn", "qkv", 0, alone=False, pattern=PackedTower),
)

# Vision-language models: where their tower and projector are, from the module with get_image_features


def first_full_block(depth: int, module: nn.Module) -> int:
    """The first block that sees a whole frame, where others see windows; else a quarter of the depth."""
    full = [i for i in getattr(module, "fullatt_block_indexes", []) if i < depth - 1]
    return min(full, default=depth // 4)


# Projectors that work row by row
register_family(("llava", "vipllava"), FamilyRow("vision_tower", "multi_modal_projector"))
register_family("llava_next", FamilyRow("vision_tower", "multi_modal_projector", tiles=True))
register_family("paligemma", FamilyRow("vision_tower", "multi_modal_projector", first_position=1))
register_tower("janus_vision_model", TowerRow("encoder.layers", "self_attn", prefix=0, alone=False))
register_family(("deepseek_vl", "janus"), FamilyRow("vision_model", "aligner"))
register_family(("qwen2_5_vl", "qwen2_vl"), FamilyRow("visual", default_layer=first_full_block))
