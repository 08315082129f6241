"""The classes of a dataset as the labels of a classifier: by name, or by number."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..bench.cli import UsageError

Form = Callable[[str], str]
BY_NAME, BY_NUMBER = "by name", "by number"
UNNAMED = re.compile(r"LABEL_\d+")  # what Transformers calls labels without names


def match_labels(classes: Sequence[str], known: Sequence[str], source: str) -> tuple[list[int], str]:
    """For each class of a dataset the label of a model that knows `known`, and how it was found.

    By name where the model knows names of the dataset: without regard to case or underscores, else by what
    stands before the first comma. Where it knows none, by number: for classes that are numbers, for a model
    whose labels have no names, and for as many classes as the model has. A class without a name ("") has no
    image, and the label -1. Raises UsageError for a class that the model does not know, or has twice.
    """
    indexes = [(form, _index(known, form)) for form in (_plain, _first)]
    found = {i: _places(name, i, indexes) for i, name in enumerate(classes) if name}
    missing = [classes[i] for i, places in found.items() if not places]
    if len(missing) == len(found):
        return _by_number(classes, known, source), BY_NUMBER
    if missing:
        raise UsageError(
            f"the model does not know {len(missing)} of the {len(found)} classes of {source}, "
            f"{missing[0]!r} among them; name classes as it does, for example {known[0]!r}, with --classes"
        )
    for i, places in found.items():
        if len(places) > 1:
            raise UsageError(
                f"the class {classes[i]!r} of {source} may be the model's label {places[0]} or {places[1]}; "
                "give labels as the model's numbers"
            )
    return [found[i][0] if i in found else -1 for i in range(len(classes))], BY_NAME


def _by_number(classes: Sequence[str], known: Sequence[str], source: str) -> list[int]:
    numbers = [int(name) if name.isdecimal() else -1 for name in classes]
    if -1 not in numbers and max(numbers) < len(known):
        return numbers
    unnamed = all(map(UNNAMED.fullmatch, known)) and len(classes) <= len(known)
    if unnamed or len(classes) == len(known):
        return list(range(len(classes)))
    raise UsageError(
        f"the model knows none of the {len(classes)} classes of {source}, {classes[0]!r} among them, and has "
        f"{len(known)} labels; name classes as it does, for example {known[0]!r}, with --classes"
    )


def _places(name: str, number: int, indexes: list[tuple[Form, dict[str, list[int]]]]) -> list[int]:
    """The labels that a class may be: its own number if that bears its name, else all that do."""
    for form, index in indexes:
        if places := index.get(form(name), []):
            return [number] if number in places else places
    return []


def _index(known: Sequence[str], form: Form) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, name in enumerate(known):
        places.setdefault(form(name), []).append(i)
    return places


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _first(name: str) -> str:
    """The first of several synonyms."""
    return _plain(name.partition(",")[0])
