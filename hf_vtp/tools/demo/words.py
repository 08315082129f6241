"""The demo's words: texts of the page, and numbers and problems as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable

from ...methods import list_methods
from .session import UNPRUNED, Row

LONGEST = 400  # characters of a problem
CSS = """
#numbers table, #numbers th, #numbers td, #numbers tr { border: none !important; }
#numbers tr + tr, #numbers tbody tr { border-top: 1px solid #8884 !important; }
#numbers td:nth-child(2) { white-space: nowrap; }
#numbers table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
#numbers th, #numbers td { padding: 4px 10px; text-align: right; }
#numbers th:first-child, #numbers td:first-child, #numbers th:last-child, #numbers td:last-child
  { text-align: left; }
#kept .grid-wrap { min-height: 0 !important; max-height: none !important; }  /* all pictures, none cut */
#differs p { font-size: 0.85em; opacity: 0.8; margin: 2px 0; }
#problem p { color: #b3261e; font-weight: 600; }
"""
INTRO = """# hf_vtp
What a vision-language model still sees when `apply_vtp(model, keep_ratio=…)` prunes its image tokens.
Dropped patches are dimmed; absorbed ones are half dimmed, inside a line in the colour of the token that
took them; what the model's preprocessing cropped away is hatched."""
TESTBED = (
    "This small model was trained on drawn scenes and knows nothing else: its answers about a photograph "
    "mean nothing."
)
RANDOM = (
    "**This model's weights are random**, since no folder with a trained one was given (`--testbed`, or "
    "`HF_VTP_TESTBED`): its answers are meaningless, and the patches it keeps show how methods work, not "
    "what matters in a picture."
)
UNITS = (
    "FLOPs and milliseconds are of the run up to the first token (where nothing is written: of the image's "
    "embedding), the latter the median of a few runs on a machine that others may be using."
)


def sentence(error: Exception | str) -> str:
    """The problem as a paragraph of HTML; a file's name in it may hold anything."""
    text = str(error)[:LONGEST]
    first = text.split(maxsplit=1)[:1]
    if first and first[0].isalpha():  # not a file's name, or code
        text = text[0].upper() + text[1:]
    return f"<p>{html.escape(text.rstrip('.'))}.</p>"


def differences(methods: Iterable[str]) -> str:
    """How each of the methods differs from its authors' released code, as HTML; "" where none does."""
    known = list_methods()
    said = {name: known[name]["differs"] for name in methods if name in known and known[name]["differs"]}
    return "".join(f"<p><code>{name}</code> {html.escape(words)}</p>" for name, words in said.items())


def table(rows: list[Row]) -> str:
    """The numbers as HTML; a model's words are escaped."""
    unpruned = next(row for row in rows if row.method == UNPRUNED)
    lines = []
    for row in rows:
        cells = (
            row.method,
            f"{row.kept} of {row.tokens}",
            f"{row.flops / 1e9:.3g}",
            f"{row.flops / unpruned.flops:.0%}",
            f"{row.milliseconds:.1f}",
            f"{row.milliseconds / unpruned.milliseconds:.0%}",
            row.answer,
        )
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    names = ("method", "tokens", "GFLOPs", "of all", "ms", "of all", "answer")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
