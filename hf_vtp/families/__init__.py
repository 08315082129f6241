"""Model families, one a file. Only these files know `transformers.models.*`."""

from .base import ADAPTERS, TOWERS, Adapter, adapter_for, register_adapter, register_tower

__all__ = ["ADAPTERS", "TOWERS", "Adapter", "adapter_for", "register_adapter", "register_tower"]

from ..towers import packed as qwen_tower  # noqa: E402, F401  (each adds its rows)
from . import clip, llava, qwen2_5_vl  # noqa: E402, F401  (each adds its rows)
