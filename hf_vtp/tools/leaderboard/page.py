"""The leaderboard as a page of Markdown: all models together, then each model with all of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ... import list_methods
from ..bench.cli import UsageError, replacing
from ..evaluation.cases import BASELINES, DOWNSAMPLE
from ..evaluation.compare import difference
from . import contestants, picture, published
from .entries import Entry, Point, missing
from .outside import OUTSIDE
from .overall import Standing, of_model, standings
from .store import Store
from .table import OVER, Shown, Table, read_table

NAMES = {
    "agree": "agreement",
    "top_1": "top-1",
    "cosine": "cosine",
    "exact_match": "exact match",
    "cider": "CIDEr",
}
MEANING = {
    "agree": "the share of images whose label is the unpruned model's",
    "top_1": "accuracy of the label",
    "cosine": "with what the unpruned model pools of the same image",
    "exact_match": "the share of answers that are a right answer",
    "cider": "against the references",
    "agreement": "the share of answers that are the unpruned model's",
}
BASELINE = (*BASELINES, DOWNSAMPLE)


def render(entries: list[Entry], folders: Mapping[str, str], store: Store, target: Path, notes: Path) -> None:
    """Write the page, and its picture beside it; raises UsageError where there is no result at all."""
    found = [(entry, read_table(store, entry)) for entry in entries]
    tables = [table for _, table in found if table is not None and table.cells]
    if not tables:
        raise UsageError(f"there are no results in {store.folder}; run the command without --render first")
    models = [of_model(table) for table in tables]
    order = standings(models)
    image = target.with_suffix(".png")
    picture.draw(image, tables, models, order, BASELINE)
    skipped = [(entry, missing(entry, folders)) for entry, table in found if table is None]
    text = [
        *heading(tables, image.name),
        *overall(order),
        *quoted(),
        *(line for table in tables for line in of_one(table, order)),
        *not_run(tables, skipped),
        *noted(notes),
    ]
    with replacing(target) as path:
        path.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


def heading(tables: list[Table], image: str) -> list[str]:
    machines = list(dict.fromkeys(machine for table in tables for machine in table.about["machine"]))
    commands = list(dict.fromkeys(command for table in tables for command in table.about["command"]))
    return [
        "# Leaderboard",
        "",
        "Every method of the library in its published form: its own parts, options, layers and schedule. "
        "Those that drop tokens are there a second time, marked `+absorb`, where the kept ones absorb the "
        "dropped. Losing rows are shown like winning ones.",
        "",
        f"![Mean relative quality of every method, and by model]({image})",
        "",
        "```bash",
        *commands,
        "```",
        "",
        *(f"Machine: {machine}." for machine in machines),
        "",
        "The results are in [model_cards/results/leaderboard](../model_cards/results/leaderboard), a file for "
        "each model and method, with the scores of every item. This page is made from them by "
        "`python scripts/leaderboard.py --render`.",
        "",
        "How to read the tables: at *FLOPs .6* every method has the keep_ratio at which the model costs .6 of "
        "its unpruned FLOPs, matching and scoring included. At *after the tower* or *in the tower, keep .25* "
        "a quarter of the image tokens is left for the language model; a method whose place is after the "
        "tower acts in it after the default's layers. Values come with half of their 95 % interval "
        f"(Student's t). A value in parentheses spent over {OVER:g} more than its point allows, as methods "
        "whose number of tokens follows the image do; it is not ranked. **Bold** is the best that is ranked. "
        "What is random is the mean of several seeds.",
        "",
    ]


def overall(order: list[Standing]) -> list[str]:
    rows = [
        [
            name(one.row),
            f"{one.rank:.1f}",
            f"{one.rank_ends[0]:.1f} to {one.rank_ends[1]:.1f}",
            f"{one.quality:.3f}",
            f"{one.quality_ends[0]:.3f} to {one.quality_ends[1]:.3f}",
            str(one.num_models),
            str(one.num_cells),
        ]
        for one in order
    ]
    headings = ["method", "mean rank", "95 % interval", "relative quality", "95 % interval", "models", "cells"]
    return [
        "## All models",
        "",
        "Rank 1 is the best of a cell (a model at a point) by the model's first metric; relative quality is "
        "that metric as a share of the unpruned model's. Both are means over the cells of a model, then over "
        "models. A row that ran on fewer models is no better or worse for it, but compare it model by model. "
        "Intervals: a bootstrap over the items of each model, the same draws for all rows.",
        "",
        *markdown(headings, rows),
        "",
    ]


def quoted() -> list[str]:
    return [
        "## What ToMe published",
        "",
        "Quoted, not measured here, and on other weights and images than ours.",
        "",
        *markdown(published.HEADINGS, published.TOME),
        "",
        f"[1] {published.SOURCE}. [2] {published.LISTED}.",
        "",
    ]


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


def not_run(tables: list[Table], skipped: list[tuple[Entry, str]]) -> list[str]:
    lines = [f"- {entry.shown}: {reason or 'it has not been measured yet'}." for entry, reason in skipped]
    for table in tables:
        by_reason: dict[str, list[str]] = {}
        for row, reason in table.reasons.items():
            by_reason.setdefault(reason.rstrip("."), []).append(row)
        lines += [
            f"- {table.entry.shown}: {', '.join(map(name, rows))}: {reason}."
            for reason, rows in by_reason.items()
        ]
    return ["## What was not run", "", *(lines or ["Everything was run."]), ""]


def noted(notes: Path) -> list[str]:
    """The text of a file that is written by hand."""
    return notes.read_text(encoding="utf-8").rstrip().split("\n") if notes.is_file() else []


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


def short(point: Point) -> str:
    return point.words.replace(", keep", " ")


def name(row: str) -> str:
    """The row as the page names it: baselines in italics."""
    return f"*{row}*" if row in BASELINE else f"`{row}`"


def source(row: str) -> str:
    method = row.partition("+")[0]
    return "" if method in OUTSIDE or method == DOWNSAMPLE else list_methods()[method]["paper"]


def markdown(headings: list[str], rows: list[list[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
