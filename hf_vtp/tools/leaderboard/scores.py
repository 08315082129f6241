"""The scores of a cell's items as short text, and what a cell is identified by."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

import numpy as np

from ..bench.cli import UsageError

STEPS = 65535  # between the least and the greatest score of a cell
MOST_ITEMS = 1_000_000


def pack(scores: list[float]) -> dict:
    """Scores rounded to one part in 65535 of their range, compressed: about two bytes an item, less if few
    values occur."""
    values = np.asarray(scores, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    steps = np.rint((values - low) / ((high - low) or 1) * STEPS).astype("<u2")
    data = base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()
    return {"low": low, "high": high, "count": len(values), "data": data}


def unpack(packed: dict) -> np.ndarray:
    """Scores [n] in float64; raises UsageError for what `pack` did not write."""
    try:
        count = packed["count"]
        if type(count) is not int or not 0 < count <= MOST_ITEMS:
            raise ValueError
        low, high = float(packed["low"]), float(packed["high"])
        data = zlib.decompressobj().decompress(base64.b64decode(packed["data"], validate=True), 2 * count + 1)
        steps = np.frombuffer(data, dtype="<u2")
        if len(steps) != count or not np.isfinite([low, high]).all():
            raise ValueError
    except (KeyError, TypeError, ValueError, zlib.error):
        raise UsageError("a result holds scores that cannot be read; delete it and measure again") from None
    return low + (high - low) * (steps / STEPS)


def digest(value: object) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
