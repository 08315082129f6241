"""Selectors: which tokens stay, [B, K] indices in ascending order. One method a file, one row a method."""

from ...pruning.registry import Table

SELECTORS = Table("selector")
register_selector = SELECTORS.register

from . import (  # noqa: E402, F401  (each adds its rows)
    anchors_buffers,
    bipartite,
    crop_quota,
    dpp,
    entropy,
    grid_union,
    image_rows,
    important_plus_diverse,
    iqr,
    least_similar,
    mass,
    max_coverage,
    max_min_diversity,
    nms,
    pivots,
    recovered,
    scope,
    spread,
    stratified,
    threshold,
    top_k,
    unlike_ranked,
)
