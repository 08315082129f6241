"""The leaderboard as a page of Markdown: all models together, then each model with all of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ... import list_methods
from ..bench.cli import UsageError, replacing
from . import picture, published
from .entries import Entry, missing
from .overall import Standing, of_model, standings
from .page_model import of_one
from .store import Store
from .table import OVER, Table, read_table
from .words import BASELINE, markdown, name


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
        *sources(order),
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
        "The results are in [model_cards/results/leaderboard](../model_cards/results/leaderboard), a file "
        "for each model and method, with the scores of every item. This page is made from them by "
        "`python scripts/leaderboard.py --render`.",
        "",
        "How to read the tables: at *FLOPs 0.6* every method has the keep_ratio at which the model costs .6 "
        "of its unpruned FLOPs (of the whole model, a language model until the first token), matching and "
        "scoring included. At *after the tower 0.25* or *in the tower 0.25* a quarter of the image tokens is "
        "left for the language model; a method whose place is after the tower acts in it after the default's "
        "layers. Values come with half of their 95 % interval (Student's t). A value in parentheses spent "
        f"over {OVER:g} more than its point allows, as methods do whose number of tokens follows the image, "
        "and is not ranked. **Bold** is the best that is ranked. "
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
    headings = [
        "method",
        "mean rank",
        "95 % interval",
        "relative quality",
        "95 % interval",
        "models",
        "cells",
    ]
    return [
        "## All models",
        "",
        "Rank 1 is the best of a cell (a model at a point) by the model's first metric; relative quality is "
        "that metric as a share of the unpruned model's. Both are means over the cells of a model, then over "
        "models. A row that ran on fewer models is no better or worse for it, but compare it model by model; "
        "one that was over the budget everywhere stands in the tables of the models alone. "
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


def sources(order: list[Standing]) -> list[str]:
    """Where each method is from, and how it knowingly differs from its authors' code."""
    known = list_methods()
    names = dict.fromkeys(one.row.partition("+")[0] for one in order)
    rows = [
        [f"`{name}`", known[name]["paper"], known[name]["differs"]]
        for name in names
        if name in known and (known[name]["paper"] or known[name]["differs"])
    ]
    return ["## Sources", "", *markdown(["method", "source", "known difference"], rows), ""]


def noted(notes: Path) -> list[str]:
    """The text of a file that is written by hand."""
    return notes.read_text(encoding="utf-8").rstrip().split("\n") if notes.is_file() else []
