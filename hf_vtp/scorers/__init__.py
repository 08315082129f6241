"""Scores: one number per token, [B, N] float32, higher = kept. One method a file, one row a method."""

from typing import Literal

from ..registry import Table

SCORERS = Table("scorer")
register_scorer = SCORERS.register
Order = Literal["largest", "smallest"]  # which end of a score stays, where precedents disagree

from . import qk_norm, random, token_norm, uniform  # noqa: E402, F401  (each adds its row)
