"""Named methods: a scorer, a selector and a merger under one name, with the options their source uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .mergers import MERGERS
from .registry import Table
from .scorers import SCORERS
from .selectors import SELECTORS


@dataclass(frozen=True)
class Method:
    """A bundle of parts; `summary` and `paper` are what the README's table says of it."""

    scorer: str
    selector: str
    merger: str
    summary: str
    paper: str = ""
    # where tokens leave unless the user says: "output", or layers of a tower with so many; None = the family's
    layers: Callable[[int], list[int]] | str | None = None
    schedule: str = "geometric"  # how several stages share the reduction
    scorer_options: dict = field(default_factory=dict)
    selector_options: dict = field(default_factory=dict)
    merger_options: dict = field(default_factory=dict)


METHODS: Table = Table("method")
METHODS.update(
    vtp=Method(
        "qk_norm",
        "nms",
        "absorb",
        "the default: rank by Q/K norm, suppress repeats, let the kept absorb the rest",
        "this project",
        scorer_options={"order": "smallest"},
        selector_options={"rounds": 4},
    ),
    qk_topk=Method(
        "qk_norm",
        "top_k",
        "drop",
        "the plain recipe: the largest Q/K norms stay, the rest is dropped",
        "Vision-Token-Pruning (denis7-jean, 2025)",
        scorer_options={"of": "qk"},
    ),
    random=Method("random", "top_k", "drop", "a floor: tokens drawn at random, seeded"),
    uniform=Method("uniform", "top_k", "drop", "a floor: a regular grid of tokens"),
)

PARTS = {"scorer": SCORERS, "selector": SELECTORS, "merger": MERGERS}


def list_methods() -> dict[str, dict[str, str]]:
    """Every named method with its parts, summary and paper; the README's table is made from it."""
    return {
        name: {part: getattr(method, part) for part in (*PARTS, "summary", "paper")}
        for name, method in METHODS.items()
    }
