"""The leaderboard command from its arguments to its end."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging

from ..bench import cli
from ..bench.cli import UsageError
from . import contestants
from .entries import Entry, missing, place, read_entries
from .measure import Measurement, load_subject
from .store import Store

MODELS, OUT = "scripts/leaderboard.json", "model_cards/results/leaderboard"
PAGE, NOTES = "docs/leaderboard.md", "docs/leaderboard-notes.md"


def options(doc: str) -> argparse.ArgumentParser:
    p = cli.Parser(description=doc.splitlines()[0])
    p.add_argument("--models", default=MODELS, metavar="FILE", help=f"models, data and points ({MODELS})")
    p.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="the folder that {NAME} stands for in --models; once for each",
    )
    p.add_argument("--data", metavar="DIR", help="the same as --folder data=DIR")
    p.add_argument("--out", default=OUT, metavar="DIR", help=f"the folder of results ({OUT})")
    p.add_argument("--only", nargs="+", metavar="MODEL", help="models of the file; default: all")
    p.add_argument("--method", nargs="+", metavar="NAME", help="rows; default: all")
    p.add_argument("--seeds", type=cli.count, default=3, help="runs of what is random (3)")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--threads", type=cli.threads, default=1, help="CPU threads (1)")
    p.add_argument("--num-items", type=cli.count, help="of every model; default: as the file says")
    p.add_argument(
        "--estimate", type=cli.count, metavar="N", help="only time N items of each model: how long all takes"
    )
    p.add_argument(
        "--render", action="store_true", help="only write the page and its picture from the results"
    )
    p.add_argument(
        "--page", default=PAGE, metavar="FILE", help=f"of --render; the picture lies beside it ({PAGE})"
    )
    p.add_argument("--notes", default=NOTES, metavar="FILE", help=f"a text that the page ends with ({NOTES})")
    return p


def main(args: argparse.Namespace) -> None:
    entries = asked(read_entries(args.models), args.only)
    rows = contestants.chosen(args.method)
    cli.require("matplotlib" if args.render else "scikit-learn")
    folders = named_folders(args)
    if args.render:
        from . import page

        page.render(entries, folders, Store(Path(args.out)), cli.writable(args.page, ".md"), Path(args.notes))
        print(json.dumps({"command": cli.command(), "page": args.page}))
        return
    out = Path(args.out)
    if args.estimate is None:
        out.mkdir(parents=True, exist_ok=True)
        cli.folder(args.out, "--out")
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    device = cli.device(args.device)
    done = {}
    for number, entry in enumerate(entries, 1):
        reason = missing(entry, folders)
        if reason:
            print(f"{entry.name} is skipped: {reason}", file=sys.stderr)
            done[entry.name] = {"skipped": reason}
            continue
        done[entry.name] = one(args, entry, folders, rows, device, f"{entry.name} ({number}/{len(entries)})")
    if args.estimate is not None:
        hours = sum(found.get("hours", 0) for found in done.values())
        print(f"about {hours:.1f} hours for {len(done)} models", file=sys.stderr)
    print(json.dumps({"command": cli.command(), "out": args.out, "models": done}))


def one(args, entry: Entry, folders: dict, rows: list[str], device: torch.device, what: str) -> dict:
    """Measure what is pending of one model; what was done, in numbers."""
    model, data = place(entry.model, folders), place(entry.data, folders)
    count = args.estimate or args.num_items or entry.num_items
    subject = load_subject(entry, model, data, count, device)
    store = None if args.estimate else Store(Path(args.out))
    measurement = Measurement(entry, subject, model, store, args.seeds)
    todo = measurement.pending(rows)
    total = len(entry.all_points) * len(rows) + 1
    with tqdm(total=len(todo) * subject.num_items, desc=what, unit="item", smoothing=0.05) as bar:
        measurement.measure(todo, bar)
    found = {"measured": measurement.measured, "not_run": measurement.not_run, "there": total - len(todo)}
    if args.estimate:
        share = (args.num_items or entry.num_items) / subject.num_items
        hours = (measurement.running * share + measurement.preparing) / 3600
        found |= {"hours": round(hours, 2), "items": subject.num_items}
        print(f"{entry.name}: about {hours:.2f} hours, {measurement.preparing:.0f} s of it to choose ratios")
    return found


def asked(entries: list[Entry], only: list[str] | None) -> list[Entry]:
    """The models asked for; raises UsageError for one that the file does not have."""
    known = [entry.name for entry in entries]
    for name in only or []:
        if name not in known:
            raise UsageError(f"unknown model {name!r}; choose from {', '.join(known)}")
    return [entry for entry in entries if not only or entry.name in only]


def named_folders(args: argparse.Namespace) -> dict[str, str]:
    """The folders given by name; raises UsageError for what is no NAME=DIR or no folder."""
    given = [*args.folder, *([f"data={args.data}"] if args.data else [])]
    found = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or not name.isidentifier() or not folder:
            raise UsageError(f"--folder takes NAME=DIR, not {text!r}")
        if not Path(folder).is_dir():
            raise UsageError(f"there is no folder {folder}, which {name} stands for")
        found[name] = folder.rstrip("/") or "/"
    return found
