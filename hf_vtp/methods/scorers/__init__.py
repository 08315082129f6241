"""Scores: one number per token, [B, N] float32, higher = kept. One method a file, one row a method."""

from typing import Literal

from ...pruning.registry import Table

SCORERS = Table("scorer")
register_scorer = SCORERS.register
Order = Literal["largest", "smallest"]  # which end of a score stays, where precedents disagree

from . import (  # noqa: E402, F401  (each adds its rows)
    cls_attention,
    equal,
    flow,
    own_and_received,
    pagerank,
    qk_norm,
    random,
    received_attention,
    text_relevance,
    token_norm,
    uniform,
)
