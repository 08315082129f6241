"""The page's part on one model: all of its rows, and each against the default."""

from __future__ import annotations

from ..evaluation.compare import difference
from . import contestants
from .entries import Point
from .overall import Standing
from .table import Shown, Table
from .words import MEANING, NAMES, markdown, name, short


def of_one(table: Table, order: list[Standing]) -> list[str]:
    entry, points, metrics = table.entry, table.points, table.metrics
    places = {one.row: i for i, one in enumerate(order)}
    rows = sorted(table.rows, key=lambda row: (-_mean_quality(table, row), places.get(row, len(places))))
    said = "; ".join(f"{NAMES.get(m, m)}: {MEANING.get(m, m)}" for m in metrics)
    whole = ", ".join(f"{NAMES.get(m, m)} {table.unpruned.values[m]:.3f}" for m in metrics)
    count = len(table.unpruned.items[metrics[0]])
    columns = [(point, metric) for point in points for metric in metrics]
    headings = ["method", *(f"{short(p)}<br>{NAMES.get(m, m)}" for p, m in columns), "share of FLOPs"]
    lines = [[name(row), *(cell(table, row, p, m) for p, m in columns), shares(table, row)] for row in rows]
    return [
        f"## {entry.shown}",
        "",
        f"Weights: {entry.weights or entry.model}. {count} items. Unpruned: {whole}. ({said}.)",
        "",
        *markdown(headings, lines),
        "",
        *against_default(table, rows),
    ]


def against_default(table: Table, rows: list[str]) -> list[str]:
    """Each row minus the default in the first metric, item by item, in points."""
    metric, default = table.metrics[0], contestants.DEFAULT
    if default not in rows:
        return []
    lines = []
    for row in rows:
        if row != default:
            pairs = [(table.cells.get((row, p.key)), table.cells.get((default, p.key))) for p in table.points]
            lines.append([name(row), *(minus(own, other, metric) for own, other in pairs)])
    return [
        f"<details><summary>Minus <code>{default}</code>, in points of {NAMES.get(metric, metric)}: paired "
        "differences with 95 % intervals</summary>",
        "",
        *markdown(["method", *map(short, table.points)], lines),
        "",
        "</details>",
        "",
    ]


def cell(table: Table, row: str, point: Point, metric: str) -> str:
    own = table.cells.get((row, point.key))
    if own is None:
        return "n/a"
    value, digits = own.values[metric], 4 if metric == "cosine" else 3
    text = f"{value:.{digits}f}"
    if metric == table.metrics[0]:
        text += f" ± {own.interval(metric):.{digits}f}"
    if not own.fair:
        return f"({text})"
    return f"**{text}**" if value == table.best(point, metric) else text


def shares(table: Table, row: str) -> str:
    found = [table.cells.get((row, point.key)) for point in table.points]
    return " / ".join("–" if own is None or own.share is None else f"{own.share:.2f}" for own in found)


def minus(own: Shown | None, other: Shown | None, metric: str) -> str:
    if own is None or other is None:
        return "n/a"
    found = difference(own.items[metric], other.items[metric])
    return f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def _mean_quality(table: Table, row: str) -> float:
    fair = [table.cells[row, p.key].values[table.metrics[0]] for p in table.points if row in table.fair(p)]
    return sum(fair) / len(fair) if len(fair) == len(table.points) else -1.0 + sum(fair) / len(table.points)
