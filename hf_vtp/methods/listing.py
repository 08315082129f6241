"""What is said of every named method."""

from __future__ import annotations

import inspect

from ..pruning.registry import OF_LAYERS, limit_of
from .layers import default_layers
from .table import METHODS, PARTS, Method


def list_methods() -> dict[str, dict[str, str]]:
    """Every named method; the README's table is made from it.

    By name: its scorer, selector and merger; `needs`, what they look at beyond hidden states; `models` it can
    act in; `where` tokens leave by default; `keep_ratio`, whether it is met exactly, a target of the mean, or
    unused; `limit`, the most tokens of an image it takes, or ""; `after_features`, whether it can act on
    features alone, and with which other part; `summary`; `paper`; and `differs`, how it knowingly differs
    from its authors' released code, or "".
    """
    return {name: describe(method) for name, method in METHODS.items()}


def describe(method: Method) -> dict[str, str]:
    rows = [table[getattr(method, part)] for part, table in PARTS.items()]
    needs = sorted({need for row in rows for need in row.needs})
    ratios = [row.keep_ratio for row in rows if row.keep_ratio != "exact"]
    return {
        **{part: getattr(method, part) for part in PARTS},
        "needs": ", ".join(needs),
        "models": "with a prompt" if "text" in needs else "all",
        "where": where(method),
        "keep_ratio": ratios[0] if ratios else "exact",
        "limit": str(limit_of(rows) or ""),
        "after_features": after_features(method),
        "summary": method.summary,
        "paper": method.paper,
        "differs": method.differs,
    }


def where(method: Method) -> str:
    """Where tokens leave by default, in words: those of a function are its docstring."""
    if method.layers == "output":
        return "after the tower (CLIP: inside)"
    words = inspect.getdoc(method.layers or default_layers) or "after layers that it chooses"
    return words.splitlines()[0].rstrip(".").lower()


def after_features(method: Method) -> str:
    """Yes, no, or the parts with which a method can do without the layers of a tower."""
    own = {**method.for_language, **method.after_features}
    parts = {part: own.get(part, getattr(method, part)) for part in PARTS}
    if any(OF_LAYERS & set(PARTS[part][name].needs) for part, name in parts.items()):
        return "no"
    return ", ".join(f"{part} {own[part]}" for part in PARTS if part in own) or "yes"
