"""Training-free visual token pruning for Transformers, in one line after `from_pretrained`."""

from importlib import import_module
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
    from .methods.mergers import register_merger
    from .methods.scorers import register_scorer
    from .methods.selectors import register_selector
    from .methods.table import list_methods
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
    "register_scorer",
    "register_selector",
    "register_tower",
    "remove_vtp",
    "tune",
    "verify",
    "vtp",
    "vtp_stats",
]
_PLACES = {  # the names of every module; it, and torch, are imported when one of them is first asked for
    "apply": "apply_vtp remove_vtp vtp vtp_stats",
    "config": "VTPConfig",
    "families": "Adapter FamilyRow list_families register_adapter register_family register_tower",
    "methods.mergers": "register_merger",
    "methods.scorers": "register_scorer",
    "methods.selectors": "register_selector",
    "methods.table": "list_methods",
    "pruning.tokens": "VisionTokens",
    "stats": "StageStats VTPStats",
    "towers.rows": "TowerRow",
    "tuning": "tune",  # the one tool among them
    "verifying": "verify",
}


def __getattr__(name: str):
    """A public name, from its module."""
    place = next((place for place, names in _PLACES.items() if name in names.split()), None)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{place}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
