"""Selectors: which tokens stay, [B, K] indices in ascending order. Here those that no single method owns."""

from ...pruning.registry import Table

SELECTORS = Table("selector")
register_selector = SELECTORS.register

from . import grid_union, mass, nms, spread, stratified, top_k, ward  # noqa: E402, F401  (each adds its row)
