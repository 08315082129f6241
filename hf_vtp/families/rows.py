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
register_tower("siglip_vision_model", TowerRow("encoder.layers", "self_attn", prefix=0))
register_tower(
    ("idefics3_vision", "smolvlm_vision"), TowerRow("encoder.layers", "self_attn", prefix=0, alone=False)
)
register_tower("internvl_vision", TowerRow("encoder.layer", "attention"))

# Vision-language models: where their tower and projector are, from the module with get_image_features


def first_full_block(depth: int, module: nn.Module) -> int:
    """The first block that sees a whole frame, where others see windows; else a quarter of the depth."""
    full = [i for i in getattr(module, "fullatt_block_indexes", []) if i < depth - 1]
    return min(full, default=depth // 4)


register_family("llava", FamilyRow("vision_tower", "multi_modal_projector"))
register_family(("qwen2_5_vl", "qwen2_vl"), FamilyRow("visual", default_layer=first_full_block))


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
    "internvl",
    FamilyRow(
        "vision_tower",
        "multi_modal_projector",
        cell=lambda config: round(1 / config.downsample_ratio),
        tiles=True,
    ),
)
register_family(
    ("cohere2_vision", "aya_vision"),
    FamilyRow(
        "vision_tower", "multi_modal_projector", cell=lambda config: config.downsample_factor, tiles=True
    ),
)
register_family("gemma3", FamilyRow("vision_tower", "multi_modal_projector", cell=cell_of_pooling))
