"""Training-free visual token pruning for Transformers, in one line after `from_pretrained`."""

import importlib
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .apply import apply_vtp, remove_vtp, vtp, vtp_stats
    from .config import VTPConfig
    from .families import (
        Adapter,
        FamilyRow,
        list_families,
        register_adapter,
        register_family,
        register_tower,
    )
    from .methods import list_methods, register_method
    from .methods.mergers import register_merger
    from .methods.scorers import register_scorer
    from .methods.selectors import register_selector
    from .pruning.tokens import VisionTokens
    from .stats import StageStats, VTPStats
    from .towers.rows import TowerRow
    from .tuning import tune
    from .verifying import verify

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
    "register_method",
    "register_scorer",
    "register_selector",
    "register_tower",
    "remove_vtp",
    "tune",
    "verify",
    "vtp",
    "vtp_stats",
]

# Where each name is, imported when it is first asked for: like `import transformers`, `import hf_vtp` does
# not load torch.
_MODULES = {
    "apply": ("apply_vtp", "remove_vtp", "vtp", "vtp_stats"),
    "config": ("VTPConfig",),
    "families": (
        "Adapter",
        "FamilyRow",
        "list_families",
        "register_adapter",
        "register_family",
        "register_tower",
    ),
    "methods": ("list_methods", "register_method"),
    "methods.mergers": ("register_merger",),
    "methods.scorers": ("register_scorer",),
    "methods.selectors": ("register_selector",),
    "pruning.tokens": ("VisionTokens",),
    "stats": ("StageStats", "VTPStats"),
    "towers.rows": ("TowerRow",),
    "tuning": ("tune",),
    "verifying": ("verify",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
