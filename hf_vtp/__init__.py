"""Training-free visual token pruning for Transformers, in one line after `from_pretrained`."""

from .apply import apply_vtp, remove_vtp, vtp, vtp_stats
from .config import VTPConfig
from .families import Adapter, FamilyRow, list_families, register_adapter, register_family, register_tower
from .methods.mergers import register_merger
from .methods.scorers import register_scorer
from .methods.selectors import register_selector
from .methods.table import list_methods
from .pruning.tokens import VisionTokens
from .stats import StageStats, VTPStats
from .towers.rows import TowerRow
from .version import __version__

__all__ = [
    "Adapter",
    "FamilyRow",
    "StageStats",
    "TowerRow",
    "VTPConfig",
    "VTPStats",
    "VisionTokens",
    "__version__",
    "apply_vtp",
    "list_families",
    "list_methods",
    "register_adapter",
    "register_family",
    "register_merger",
    "register_scorer",
    "register_selector",
    "register_tower",
    "remove_vtp",
    "tune",
    "verify",
    "vtp",
    "vtp_stats",
]


def __getattr__(name: str):
    """`tune` and `verify` when first asked for: pruning a model needs nothing of what they import."""
    if name == "tune":
        from .tuning import tune

        return tune
    if name == "verify":
        from .verifying import verify

        return verify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
