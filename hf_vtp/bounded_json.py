"""JSON from strangers: bounded in size, depth and numbers; whatever is wrong with it is one ValueError."""

from __future__ import annotations

import json
import math
from pathlib import Path

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8
MAX_TEXT = 200  # characters of a string
MAX_DIGITS = 18  # of an int
MAX_MESSAGE = 400


def read(path: Path, source: str) -> object:
    """The value in a file, which errors call `source`; raises ValueError, OSError if it is missing."""
    with open(path, "rb") as file:
        return parse(file.read(MAX_BYTES + 1), source)


def check_size(num_bytes: int, source: str) -> None:
    """Raise ValueError for more bytes than a config may have."""
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{source} is larger than {MAX_BYTES} bytes, which no pruning config is")


def parse(data: bytes, source: str) -> object:
    """The value that `data` spells; raises ValueError with one sentence that begins with `source`."""
    check_size(len(data), source)
    try:
        text = data.decode("utf-8")
        _check_depth(text)  # first: the parser itself is recursive
        value = json.loads(
            text, parse_int=_int, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object
        )
        _check_texts(value)
    except UnicodeDecodeError:
        raise ValueError(f"{source} is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not valid JSON: {error}") from None
    except ValueError as error:
        raise ValueError(f"{source} cannot be used: {error}") from None
    return value


def shortened(text: str) -> str:
    """The text with its middle left out where it is too long for an error message."""
    if len(text) <= MAX_MESSAGE:
        return text
    return f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"


def _check_depth(text: str) -> None:
    depth, quoted, escaped = 0, False, False
    for character in text:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = character == "\\", character != '"'
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def _check_texts(value: object) -> None:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"it holds a text of {len(value)} characters, where {MAX_TEXT} are allowed")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            _check_texts(item)


def _int(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(digits)} digits, where {MAX_DIGITS} are allowed")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {shortened(digits)} is too large")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _object(pairs: list[tuple[str, object]]) -> dict:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{shortened(repr(twice))} stands in it twice")
    return value
