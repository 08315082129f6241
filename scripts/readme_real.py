"""The README's first table: the default on real ImageNet weights beside ToMe, diversity and the baselines."""

from __future__ import annotations

from pathlib import Path

from hf_vtp.tools.evaluation.cases import BASELINES
from hf_vtp.tools.evaluation.compare import difference
from hf_vtp.tools.leaderboard.entries import read_entries
from hf_vtp.tools.leaderboard.store import Store
from hf_vtp.tools.leaderboard.table import Table, read_table

MODELS = ("deit_tiny", "vit_tiny")  # of scripts/leaderboard.json
OURS, PUBLISHED, DIVERSE = "vtp", "tome (published)", "divprune+absorb"
OTHERS = (PUBLISHED, "tome", DIVERSE)
HEADINGS = [
    "model",
    "FLOPs",
    f"`{OURS}`",
    *(f"`{name}`" for name in OTHERS),
    "best baseline",
    "1 - cosine, share of published ToMe's",
    f"agreement of `{OURS}`",
    "best of the others",
    "difference, 95 % interval",
    "top-1",
]


def tables(root: Path) -> list[Table]:
    """What is on disk of the models, in their order."""
    entries = {entry.name: entry for entry in read_entries(str(root / "scripts" / "leaderboard.json"))}
    store = Store(root / "model_cards" / "results" / "leaderboard")
    found = (read_table(store, entries[name]) for name in MODELS)
    return [table for table in found if table is not None]


def rows(root: Path) -> list[list[str]]:
    return [row for table in tables(root) for point in table.points for row in _row(table, point)]


def _row(table: Table, point) -> list[list[str]]:
    here = {row: table.cells[row, point.key] for row in table.fair(point)}
    if OURS not in here:
        return []
    cosine = {row: cell.values["cosine"] for row, cell in here.items()}
    floors = [row for row in BASELINES if row in here]
    best = max(floors, key=cosine.get, default=None)
    compared = [row for row in (*OTHERS, *floors) if row in here]
    rival = max(compared, key=lambda row: here[row].values["agree"])
    pair = difference(here[OURS].items["agree"], here[rival].items["agree"])
    share = (1 - cosine[OURS]) / (1 - cosine[PUBLISHED]) if PUBLISHED in here else None
    return [
        [
            table.entry.title,
            f"{point.value:g}",
            f"**{cosine[OURS]:.4f}**" if cosine[OURS] == max(cosine.values()) else f"{cosine[OURS]:.4f}",
            *(f"{cosine[row]:.4f}" if row in cosine else "not reached" for row in OTHERS),
            "n/a" if best is None else f"{cosine[best]:.4f} (`{best}`)",
            "n/a" if share is None else f"{share:.2f}",
            f"{here[OURS].values['agree']:.3f}",
            f"{here[rival].values['agree']:.3f} (`{rival}`)",
            f"{pair['difference']:+.3f}, {pair['low']:+.3f} to {pair['high']:+.3f}",
            f"{here[OURS].values['top_1']:.3f} of {table.unpruned.values['top_1']:.3f}",
        ]
    ]


def command(root: Path) -> str:
    """The command that measured the table."""
    return next(iter(tables(root)[0].about["command"]))
