"""In words: which method wins where, and where each loses."""

from __future__ import annotations

from collections.abc import Sequence

from .cases import DOWNSAMPLE, amount
from .compare import BEST, HOW
from .equal_speed import words


def verdict(
    title: str,
    rows: list[dict],
    compared: list[dict],
    metrics: Sequence[str],
    equal: Sequence[dict] = (),
    paired: Sequence[dict] = (),
) -> str:
    """The text that stands beside a table."""
    lines = [title, "=" * len(title.splitlines()[-1]), ""]
    if not metrics:
        return "\n".join([*lines, "Random weights: nothing is said of quality.", ""])
    few = min((row["num_items"] for row in compared), default=0)
    lines += [f"{few} items in each comparison. {HOW}.", ""]
    if 0 < few < 2000:
        lines += ["Fewer than 2,000 items: differences this table calls neither may be real.", ""]
    for metric in metrics:
        lines += [metric, "-" * len(metric), "", *_winners(metric, rows), ""]
        own = [row for row in compared if row["metric"] == metric]
        for method in dict.fromkeys(row["method"] for row in own):
            lines += _record(method, [row for row in own if row["method"] == method])
        lines += _pairs([row for row in paired if row["metric"] == metric])
        lines.append("")
    for metric in dict.fromkeys(row["metric"] for row in equal):
        heading = f"{metric} at equal throughput"
        lines += [
            heading,
            "-" * len(heading),
            "",
            *words([r for r in equal if r["metric"] == metric], rows),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _winners(metric: str, rows: list[dict]) -> list[str]:
    """The best row of every cell, baselines included."""
    lines = []
    pruned = [(amount(row), row) for row in rows if row["keep_ratio"] is not None]
    for asked, layer in dict.fromkeys((asked, row["layer"]) for asked, row in pruned if row["layer"] != "-"):
        inside = [
            row for x, row in pruned if x == asked and (row["layer"] == layer or row["method"] == DOWNSAMPLE)
        ]
        best = max(inside, key=lambda row: row[metric])
        lines.append(f"{asked}, layer {layer}: {best['method']} is best with {best[metric]:.4f}")
    return lines


def _record(method: str, own: list[dict]) -> list[str]:
    """The cells that one method wins, loses and neither."""
    lines = [f"{method} against the best baseline of each cell:"]
    for outcome in ("wins", "loses", "neither"):
        cells = [
            f"{amount(row)} layer {row['layer']} "
            f"({row[BEST]}: {row['difference']:+.4f}, {row['low']:+.4f} to {row['high']:+.4f})"
            for row in own
            if row["outcome"] == outcome
        ]
        lines += [f"  {outcome}: {'; '.join(cells) or 'nowhere'}"]
    return lines


def _pairs(paired: list[dict]) -> list[str]:
    """A line for every method, layer and other row of a method that was named: the differences by ratio."""
    cells: dict[str, list[str]] = {}
    for row in paired:
        places = f"{row['method']}, layer {row['layer']}, against {row['other']}, layer {row['other_layer']}"
        interval = f"{row['difference']:+.4f}, {row['low']:+.4f} to {row['high']:+.4f}"
        cells.setdefault(places, []).append(f"{amount(row)} ({interval})")
    return [f"{places}: {'; '.join(found)}" for places, found in cells.items()]
