"""Selectors: which tokens stay, [B, K] indices in ascending order. One method a file, one row a method."""

from ..registry import Table

SELECTORS = Table("selector")
register_selector = SELECTORS.register

from . import nms, top_k  # noqa: E402, F401  (each adds its row)
