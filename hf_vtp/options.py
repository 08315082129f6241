"""One declaration for each field of a config: its default, what it may be, and its line of documentation."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

NONE = type(None)


def option(
    default: Any, doc: str, allowed: str, kinds: tuple[type, ...], of: type | None = None, choices: tuple = ()
) -> Any:
    """A dataclass field that knows what it takes.

    Args:
        allowed: `kinds` in words, for the error.
        of: the type of what a list holds, if it takes lists.
        choices: the names it takes, if they are few.
    """
    metadata = {"doc": doc, "allowed": allowed, "kinds": kinds, "of": of, "choices": choices}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def checked(field: dataclasses.Field, value: object) -> object:
    """A value of a field, a tuple as a list; raises TypeError or ValueError for one it does not take."""
    kinds, of, choices = (field.metadata[name] for name in ("kinds", "of", "choices"))
    value = list(value) if isinstance(value, tuple) else value
    if isinstance(value, list) and list in kinds:
        right = all(_is(item, (of,)) for item in value)
    else:
        right = _is(value, kinds)
    if not right:
        raise TypeError(f"{field.name} must be {field.metadata['allowed']}, not {value!r}")
    if choices and value not in choices:
        raise ValueError(f"unknown {field.name} {value!r}; choose from {list(choices)}")
    return value


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds or (type(value) is int and float in kinds)  # True is an int to isinstance


def described(config: type, indent: int) -> str:
    """The lines of documentation of a config's fields, for an Args section."""
    lines = []
    for field in dataclasses.fields(config):
        text = textwrap.wrap(f"{field.name}: {field.metadata['doc']}", 106 - indent)
        lines += [text[0], *(f"    {line}" for line in text[1:])]
    return textwrap.indent("\n".join(lines), " " * indent)


def documented(cls: type) -> type:
    """Class decorator: {fields} in the docstring becomes the fields' documentation."""
    cls.__doc__ = inspect.getdoc(cls).replace("{fields}", described(cls, 4).lstrip())
    return cls


def takes_fields(config: type) -> Callable[[Callable], Callable]:
    """Decorator of a function whose `**fields` are a config's: they enter its signature and docstring."""

    def add(function: Callable) -> Callable:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=field.type,
            )
            for field in dataclasses.fields(config)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *fields])
        function.__doc__ = inspect.getdoc(function).replace("{fields}", described(config, 4).lstrip())
        return function

    return add


def _default(field: dataclasses.Field) -> object:
    missing = field.default_factory is dataclasses.MISSING
    return field.default if missing else field.default_factory()
