"""Tables of methods: a name, a pure function, and what a reader of the README wants to know about it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin

OF_LAYERS = {"query", "key", "value", "attention", "cls", "next"}  # needs that only a tower's layers can meet


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    `needs` names what the function looks at beyond hidden states: "key", "query", "value", "attention"
    (queries and keys, rotated), "next" (those that the next layer would make of the states, rotated), "text"
    (the prompt), "projected" (tokens behind the projector, where a tower ends and has one), "cls" (a [CLS]
    token) or "clip" (all frames of a video in one view, whatever `video_budget` says). A stage records only
    that, and a model that lacks it refuses; only "projected" is never lacking.

    `keep_ratio`: "exact"; or, where the number of kept tokens follows the image, "target" (of the mean over
    images) or "unused". `weighs`: sizes enter later attention. `averages`: a group becomes the mean of its
    tokens, by their sizes. `rows_differ`: a merger that takes rows with
    different counts, padded with -1, as they are; others get rows of one count at a time.

    `extra(num_keep, **options)`: how many of the kept a merger makes itself.
    `watches(layer, num_layers, num_prefix_tokens, **options)`: layers that a stage at `layer` wants to know
    of, and `observe(tokens, **options)` what of each: [B, N] float32, found by the stage in `tokens.seen`.
    `limit`: most tokens an image may have.
    `prepare(**options)`: called when a model is pruned, for what must not happen in a forward: reading files.
    """

    function: Callable
    summary: str
    paper: str = ""
    needs: tuple[str, ...] = ()
    keep_ratio: Literal["exact", "target", "unused"] = "exact"
    weighs: bool = False
    averages: bool = False
    rows_differ: bool = False
    extra: Callable[..., int] | None = None
    watches: Callable[..., list[int]] | None = None
    observe: Callable | None = None
    limit: int | None = None
    prepare: Callable | None = None

    def check_options(self, name: str, options: dict) -> None:
        """Raise ValueError unless every option is a keyword argument of the function with a value it allows.

        A parameter annotated with a Literal allows those values, with Annotated[int, range(…)] the numbers of
        that range, with Annotated[float, (low, high)] those between the two, either with `| None` None too,
        any other what has the type of its default.
        """
        parameters = inspect.signature(self.function, eval_str=True).parameters
        known = {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
        for option, value in options.items():
            if option not in known:
                raise ValueError(f"unknown option {option!r} for {name!r}; choose from {sorted(known)}")
            allowed, default = get_args(known[option].annotation), known[option].default
            if get_origin(known[option].annotation) is Literal:
                if value not in allowed:
                    raise ValueError(f"{option} of {name!r} must be one of {list(allowed)}, not {value!r}")
            elif get_origin(known[option].annotation) is Annotated:
                check_bounds(name, option, value, *allowed)
            elif type(None) in allowed and get_origin(allowed[0]) is Annotated:
                if value is not None:
                    check_bounds(name, option, value, *get_args(allowed[0]))
            elif type(None) in allowed:  # a number, or None
                if value is not None and not same_kind(value, 0.0):
                    raise ValueError(f"{option} of {name!r} must be a number or None, not {value!r}")
            elif isinstance(default, int | float | str) and not same_kind(value, default):
                kind = type(default).__name__
                raise ValueError(f"{option} of {name!r} must be of type {kind}, not {value!r}")


def limit_of(entries: Iterable[Entry]) -> int | None:
    """The most tokens an image may have for all of these entries, None if any number."""
    limits = [entry.limit for entry in entries if entry.limit is not None]
    return min(limits) if limits else None  # torch.compile does not know min's default


def check_bounds(name: str, option: str, value: object, kind: type, bounds: range | tuple) -> None:
    """Raise ValueError unless the value is of that type and within a range, or a tuple's two ends."""
    low, high = (bounds.start, bounds.stop - 1) if isinstance(bounds, range) else bounds
    if not same_kind(value, kind(low)) or not low <= value <= high:
        span = f"from {low} to {high}"
        raise ValueError(f"{option} of {name!r} must be of type {kind.__name__} {span}, not {value!r}")


def same_kind(value: object, default: object) -> bool:
    """Whether a value may stand where the default does: the same type, or an int for a float."""
    if type(value) is float and not math.isfinite(value):
        return False
    return type(value) is type(default) or (type(value) is int and type(default) is float)


class Table(dict[str, Entry]):
    """Entries by name; an unknown name raises a ValueError that lists the known ones."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def __missing__(self, name: object):
        raise ValueError(f"unknown {self.kind} {name!r}; choose from {sorted(self)}")

    def register(self, name: str, **row) -> Callable[[Callable], Callable]:
        """Decorator that adds a function under `name`; a name that is taken raises a ValueError."""

        def add(function: Callable) -> Callable:
            if name in self:
                raise ValueError(f"the {self.kind} {name!r} exists already")
            summary = row.pop("summary", None) or inspect.getdoc(function) or name
            self[name] = Entry(function, summary.splitlines()[0], **row)
            return function

        return add
