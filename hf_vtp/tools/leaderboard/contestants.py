"""The rows of a leaderboard: every method in its published form, those that drop also with absorb."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from functools import cache

from ... import list_methods
from ...config import VTPConfig
from ...methods.layers import SCHEDULES, default_layers
from ...methods.table import METHODS, PARTS, Method
from ...schedule import OUTPUT
from ..bench.cli import UsageError
from ..evaluation.cases import BASELINES, DOWNSAMPLE
from .entries import Point
from .outside import OUTSIDE

DEFAULT = "vtp"
CODE = ("hf_vtp.methods.", "hf_vtp.pruning.similarity", "hf_vtp.pruning.ward")  # what decides a row
ABSORB = "+absorb"


def rows() -> list[str]:
    """Every row in the order of the table of methods; the baselines come last, then rows from outside."""
    known = list_methods()
    methods = [name for name in known if name not in BASELINES]
    each = [row for name in methods for row in (name, name + ABSORB) if row == name or drops(known[name])]
    return [*each, *BASELINES, DOWNSAMPLE, *OUTSIDE]


def drops(described: dict) -> bool:
    return described["merger"] == "drop"


def chosen(names: list[str] | None) -> list[str]:
    """The rows asked for, or all of them; raises UsageError for an unknown one."""
    known = rows()
    for name in names or []:
        if name not in known:
            raise UsageError(f"unknown method {name!r}; choose from {', '.join(known)}")
    return [name for name in known if not names or name in names]


def config_of(row: str, point: Point, default_layers: list[int]) -> VTPConfig:
    """What to apply for a row at a point, in its published form.

    At "after" everything leaves after the tower. Elsewhere a method keeps its own layers; one whose place is
    after the tower acts in it after the default's layers, `default_layers`.
    """
    name, _, merger = row.partition("+")
    fields = {"method": name, "merger": merger or None, "keep_ratio": point.value}
    if point.place == "after":
        return VTPConfig(layer=OUTPUT, **fields)
    own = METHODS[name].layers
    layers = default_layers[0] if len(default_layers) == 1 else default_layers
    return VTPConfig(layer=layers if own == OUTPUT else None, **fields)


def seeds_of(config: VTPConfig, count: int) -> list[VTPConfig]:
    """The config once, or `count` times with different seeds where scores are drawn at random."""
    if config.part("scorer")[0] != "random":
        return [config]
    return [config.replace(scorer_options={"seed": seed}) for seed in range(count)]


def version_of(row: str) -> str:
    """Changes with the parts, options, places and code of a row, not with comments or docstrings."""
    if row in OUTSIDE:
        return OUTSIDE[row].version
    if row == DOWNSAMPLE:
        return "1"
    name, _, merger = row.partition("+")
    method = METHODS[name]
    config = VTPConfig(method=name, merger=merger or None)
    layers = default_layers if method.layers is None else method.layers
    where = layers if not callable(layers) else [layers(count) for count in (4, 12, 24)]
    configs = (config, config.for_language(), config.before_language())
    parts = [own.part(part) for own in configs for part in PARTS]
    names = {(part, own.part(part)[0]) for own in configs for part in PARTS}
    functions = [PARTS[part][name].function for part, name in sorted(names)]
    code = sorted({module: _code(module) for f in functions for module in _modules(f.__module__)}.items())
    shares = [SCHEDULES[method.sharing](ratio, 0.5) for ratio in (0.1, 0.5)]
    return hashlib.sha256(repr((parts, where, shares, code)).encode()).hexdigest()[:16]


def _modules(name: str, found: tuple[str, ...] = ()) -> set[str]:
    """A module of methods, and all of methods that it takes names from, but the table."""
    if name in found or name not in sys.modules or name == Method.__module__:
        return set()
    names = {name}
    for value in vars(sys.modules[name]).values():
        other = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
        if isinstance(other, str) and other.startswith(CODE):
            names |= _modules(other, (*found, name))
    return names


@cache
def _code(module: str) -> str:
    """The statements of a module, without comments and docstrings."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # defined where there is no file
        return ""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
                body[0].value.value = ""
    return ast.unparse(tree)
