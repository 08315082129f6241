"""Mergers: what becomes of the tokens that leave. Here those that several methods share."""

from ...pruning.registry import Table

MERGERS = Table("merger")
register_merger = MERGERS.register

from . import absorb, drop, knn_weighted, weighted_mean  # noqa: E402, F401  (each adds its row)
