"""The CLIP, LLaVA, Qwen2.5-VL and method benchmarks at the published sizes, one piece after the other.

Each piece writes NAME.json, NAME.md and a picture, and takes under nine minutes. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys

from .. import child
from ..bench import cli, suite


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--out", help="an existing folder for the results")
    p.add_argument("--piece", nargs="+", help="default: all for the device")
    p.add_argument("--device", choices=tuple(suite.PIECES), help="default: cuda if there, else cpu")
    p.add_argument("--list", action="store_true", help="print the pieces and their commands, run nothing")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    device = args.device if args.list and args.device else cli.device(args.device).type
    pieces = suite.PIECES[device]
    for name in args.piece or ():
        if name not in pieces:
            raise cli.UsageError(f"unknown piece {name!r} for {device}; choose from {', '.join(pieces)}")
    chosen = {name: pieces[name] for name in args.piece or pieces}
    if args.list:
        for name, piece in chosen.items():
            print(name, shlex.join([*child.shown(piece.command), *piece.arguments.split()]), sep="\n  ")
        return
    if args.out is None:
        raise cli.UsageError("--out is missing; give the name of a folder for the results")
    out = cli.folder(args.out, "--out")
    if not out.is_dir():
        raise cli.UsageError(f"--out must be an existing folder, not {args.out}")
    cli.require("rich", "matplotlib", "scikit-image")
    failed = {}
    for name, piece in chosen.items():
        print(f"== {name}", flush=True)
        try:
            suite.run(name, piece, out)
        except cli.UsageError as error:
            failed[name] = str(error)
            print(error, file=sys.stderr)
    print(json.dumps({"device": device, "done": [n for n in chosen if n not in failed], "failed": failed}))
    if failed:
        raise cli.UsageError(f"{len(failed)} of {len(chosen)} pieces failed: {', '.join(failed)}")
