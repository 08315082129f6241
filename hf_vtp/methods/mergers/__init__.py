"""Mergers: what becomes of the tokens that leave. One method a file, one row a method."""

from ...pruning.registry import Table

MERGERS = Table("merger")
register_merger = MERGERS.register

from . import absorb, bipartite, contextual, drop, knn_weighted, many_to_many, propagate  # noqa: E402, F401
