"""What verify found: a row for every promise, as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Check:
    """One promise.

    Attributes:
        name: short.
        compares: what was compared with what, in one sentence.
        holds: None = it does not apply to this model and config, or could not be decided; `detail` says why.
        figure: the largest relative difference, ‖a - b‖ / ‖b‖ of rows; None where nothing was compared.
        bound: what the figure may be; 0 = bit-equal.
        detail: what else there is to say, or what was raised.
    """

    name: str
    compares: str
    holds: bool | None
    figure: float | None = None
    bound: float | None = None
    detail: str = ""

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "FAILS", None: "n/a"}[self.holds]

    def cells(self) -> tuple[str, str, str, str, str]:
        """Verdict, name, figure, bound and the sentences, as text."""
        numbers = ["-" if x is None else "0" if x == 0 else f"{x:.1e}" for x in (self.figure, self.bound)]
        said = [self.detail] if self.figure is None and self.holds is None else [self.compares, self.detail]
        return self.verdict, self.name, *numbers, "".join(f"{part}. " for part in said if part).strip()


@dataclass(frozen=True)
class Report:
    """Every promise that was checked, in order.

    Attributes:
        model_class: its name.
        dtype: what it runs in; "tf32" for float32 whose products a GPU rounds to TF32.
        config: VTPConfig's fields.
        checks: one Check a promise.
        environment: versions and machine.
    """

    model_class: str
    dtype: str
    config: dict
    checks: Sequence[Check]
    environment: dict

    @property
    def holds(self) -> bool:
        """Whether every promise that applies holds, and at least one does apply."""
        applying = [check.holds for check in self.checks if check.holds is not None]
        return bool(applying) and all(applying)

    def __getitem__(self, name: str) -> Check:
        """The check of that name; raises KeyError that lists the names there are."""
        found = {check.name: check for check in self.checks}
        if name not in found:
            raise KeyError(f"unknown check {name!r}; choose from {sorted(found)}")
        return found[name]

    @property
    def summary(self) -> str:
        """What was found, in one sentence."""
        count = {verdict: sum(check.holds is verdict for check in self.checks) for verdict in (True, False)}
        failed = ", ".join(check.name for check in self.checks if check.holds is False)
        applying = count[True] + count[False]
        if not applying:
            return f"Nothing could be checked on {self.model_class}."
        if failed:
            return f"{count[False]} of {applying} checks fail on {self.model_class} ({self.dtype}): {failed}."
        return f"All {applying} checks that apply hold on {self.model_class} ({self.dtype})."

    def table(self) -> str:
        """The checks as a table, drawn by rich where it is installed."""
        heads = ("", "check", "difference", "bound", "what is compared")
        rows = [check.cells() for check in self.checks]
        try:
            drawn = _rich(heads, rows)
        except ImportError:
            drawn = _plain(heads, rows)
        return f"{drawn}\n{self.summary}"

    def __repr__(self) -> str:
        return self.table()

    def to_dict(self) -> dict:
        """All of it as plain values that JSON can hold; a figure that is not finite is None."""
        checks = [{k: _finite(v) for k, v in asdict(check).items()} for check in self.checks]
        names = ("holds", "summary", "model_class", "dtype", "config", "environment")
        return {**{name: getattr(self, name) for name in names}, "checks": checks}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rich(heads: tuple, rows: list[tuple]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=120, highlight=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="right" if head in ("difference", "bound") else "left")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    with console.capture() as drawn:
        console.print(table)
    return "\n".join(line.rstrip() for line in drawn.get().splitlines()).strip("\n")


def _plain(heads: tuple, rows: list[tuple]) -> str:
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads) - 1)]
    lines = []
    for *cells, said in (heads, *rows):
        cells = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join((*cells, said)))
    return "\n".join(lines)
