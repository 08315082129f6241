"""A method against all others at the throughput that each of them was measured to have."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

from .cases import BASELINES, DOWNSAMPLE, UNPRUNED, amount
from .pareto import frontier

ROUNDS = 10  # timed batches of a row from which on its throughput is worth comparing at


def at_equal_throughput(rows: Sequence[dict], metrics: Sequence[str], speed: str) -> list[dict]:
    """For every metric, layer and method that is no baseline, each other row of that layer beside the method.

    The quality of a method at another's throughput (`speed`) is read from the lines that join its own best
    rows and the unpruned model's; a row that is faster than all of these is skipped. One ratio is not one
    speed, because choosing and merging take time, too.
    """
    baselines, unpruned = (*BASELINES, DOWNSAMPLE), [row for row in rows if row["method"] == UNPRUNED]
    found = []
    for metric in metrics:
        for layer in dict.fromkeys(row["layer"] for row in rows if row["layer"] != "-"):
            here = [row for row in rows if row["layer"] == layer or row["method"] == DOWNSAMPLE]
            for method in dict.fromkeys(row["method"] for row in here if row["method"] not in baselines):
                own = [row for row in here if row["method"] == method]
                best = frontier([(row[speed], row[metric]) for row in unpruned + own], rising=True)
                throughput, quality = zip(*best, strict=True)
                for row in here:
                    if row["method"] != method and row[speed] <= throughput[-1]:
                        value = float(np.interp(row[speed], throughput, quality))
                        pair = {"metric": metric, "layer": layer, "method": method, "other": row["method"]}
                        pair |= {f"other_{key}": row[key] for key in ("flops", "keep_ratio") if key in row}
                        pair |= {speed: row[speed]}
                        pair |= {"speedup": row["speedup"], "value": value, "other_value": row[metric]}
                        found.append({**pair, "difference": value - row[metric]})
    return found


def words(compared: Sequence[dict], rows: Sequence[dict]) -> list[str]:
    """A line for every method, layer and other method: the method's gain by the other's ratio."""
    width = median(row["latency_spread"] for row in rows)
    lines = [f"Of half of the rows the quartiles of the timed rounds lie at most {width:.1%} apart.", ""]
    for method, layer in dict.fromkeys((row["method"], row["layer"]) for row in compared):
        lines.append(f"{method}, layer {layer}, at the measured throughput of another row, against that row:")
        own = [row for row in compared if (row["method"], row["layer"]) == (method, layer)]
        for other in dict.fromkeys(row["other"] for row in own):
            cells = [
                f"{amount(row, 'other_')} ({row['speedup']:.2f}x): {row['difference']:+.4f}"
                for row in own
                if row["other"] == other
            ]
            lines.append(f"  {other}: {'; '.join(cells)}")
    return lines
