"""What a benchmark prints and writes: a table, and the same rows as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from .cli import replacing

Column = tuple[str, Callable[[dict], str]]  # heading, and what stands in a row


def number(key: str, digits: int) -> Callable[[dict], str]:
    """A cell with the row's number, n/a where there is none."""
    return lambda row: "n/a" if row[key] is None else f"{row[key]:.{digits}f}"


def measured(key: str, digits: int) -> Callable[[dict], str]:
    """The same, n/a also in results from before it was measured."""
    return lambda row: "n/a" if row.get(key) is None else f"{row[key]:.{digits}f}"


FLOOR_COLUMNS: tuple[Column, ...] = (
    ("arith-\nmetic ms", measured("arithmetic_floor_ms", 1)),
    ("memory\nms", measured("memory_floor_ms", 1)),
    ("times\nfloor", measured("times_floor", 2)),
)


def floor_note(peak: dict) -> str:
    """What the floors of a table were worked out with."""
    speed, moved = peak["flops_per_s"] / 1e9, peak["bytes_per_s"] / 1e9
    return f"Floors at {speed:.0f} GFLOP/s and {moved:.0f} GB/s: {peak['meaning']}."


VISION_COLUMNS: tuple[Column, ...] = (
    ("batch", lambda row: str(row["batch_size"])),
    ("method", lambda row: row["method"]),
    ("keep", lambda row: "-" if row["keep_ratio"] is None else str(row["keep_ratio"])),
    ("tokens", lambda row: f"{row['kept_tokens']}/{row['total_tokens']}"),
    ("p50\nms", number("latency_p50_ms", 1)),
    ("IQR\nms", number("latency_iqr_ms", 1)),
    ("p95\nms", number("latency_p95_ms", 1)),
    ("img/s", number("images_per_s", 1)),
    ("speed-\nup", number("speedup", 2)),
    ("GFLOP\n/img", lambda row: f"{row['gflop_per_image']:#.3g}"),
    ("FLOP\nratio", number("flop_ratio", 2)),
    ("effi-\nciency", number("efficiency", 2)),
    ("peak\nMiB", number("peak_memory_mib", 0)),
    *FLOOR_COLUMNS,
    ("cosine\nmean", number("cosine_mean", 4)),
    ("cosine\nmin", number("cosine_min", 4)),
    ("cosine\np5", number("cosine_p5", 4)),
)


def print_table(
    title: str,
    columns: Sequence[Column],
    rows: list[dict],
    notes: Sequence[str] = (),
    groups: Sequence[str] = ("batch_size",),
) -> None:
    """The rows on stdout, as wide as they need to be; a gap where one of `groups` changes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=260, highlight=False)  # rich would cut cells where a narrow terminal wraps lines
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for heading, _ in columns:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = following is not None and any(following[key] != row[key] for key in groups)
        table.add_row(*(cell(row) for _, cell in columns), end_section=last)
    console.print(table, soft_wrap=True)
    for note in notes:
        console.print(note, soft_wrap=True, markup=False)


def write_json(target: Path, result: dict) -> None:
    """The result as an indented file; whole or not at all."""
    with replacing(target) as path:
        path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def print_json(result: dict) -> None:
    """The result as the last line of stdout."""
    print(json.dumps(result, allow_nan=False), flush=True)
