"""Scores: one number per token, [B, N] float32, higher = kept. Here those that several methods share."""

from typing import Literal

from ...pruning.registry import Table

SCORERS = Table("scorer")
register_scorer = SCORERS.register
Order = Literal["largest", "smallest"]  # which end of a score stays, where precedents disagree

from . import (  # noqa: E402, F401  (each adds its row)
    cls_attention,
    equal,
    importance,
    linear_probe,
    one_head_attention,
    qk_norm,
    received_attention,
    text_relevance,
    token_norm,
)
