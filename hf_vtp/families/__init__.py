"""Model families as rows of data over a few patterns. Only `rows` names families of Transformers."""

from . import rows  # noqa: F401  (fills the tables)
from .base import Adapter
from .table import FamilyRow, adapter_for, list_families, register_adapter, register_family, register_tower

__all__ = [
    "Adapter",
    "FamilyRow",
    "adapter_for",
    "list_families",
    "register_adapter",
    "register_family",
    "register_tower",
]
