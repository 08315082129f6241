"""Mergers: what becomes of the tokens that leave. One method a file, one row a method."""

from ..registry import Table

MERGERS = Table("merger")
register_merger = MERGERS.register

from . import (  # noqa: E402, F401  (each adds its row)
    absorb,
    bipartite,
    contextual,
    drop,
    knn_weighted,
    many_to_many,
    propagate,
)
