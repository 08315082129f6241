"""The parts that eval-clip and eval-vlm share: options, and a table, files and a JSON line at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from transformers.utils import logging

from ... import list_methods
from ...environment import environment
from ...files import replacing
from ..bench import cli, plot, report
from . import pareto
from .cases import DOWNSAMPLE, Case, amount, make_cases
from .compare import HOW, compare, paired, refuse_unknown
from .equal_speed import ROUNDS, at_equal_throughput
from .item_scores import write_items
from .processes import Processes
from .rows import Quality, make_rows
from .verdict import verdict

SEEDS = 5


def parser(doc: str, flops: bool = False) -> argparse.ArgumentParser:
    """The options that both have; and --flops, where one forward's FLOPs can be counted."""
    p = cli.Parser(description=doc.splitlines()[0])
    p.add_argument("--model", required=True, help="a folder, or a name on the Hub or in its cache")
    p.add_argument(
        "--weights", choices=("pretrained", "random"), default="pretrained", help="random: no quality"
    )
    p.add_argument("--split", default="", help="of the dataset; default: test, validation, val or train")
    amounts = p.add_mutually_exclusive_group()
    amounts.add_argument("--keep-ratio", type=float, nargs="+", default=[0.7, 0.5, 0.25, 0.1])
    if flops:
        amounts.add_argument(
            "--flops",
            type=float,
            nargs="+",
            default=[],
            help="in its place: shares of the unpruned tower's FLOPs; each row's own ratio is solved",
        )
    p.add_argument(
        "--method",
        nargs="+",
        default=["vtp", "qk_topk"],
        help=f"beside the baselines: NAME, or NAME+MERGER, of {', '.join(list_methods())}",
    )
    p.add_argument(
        "--layer",
        type=cli.layer,
        nargs="+",
        default=[None],
        metavar="LAYER",
        help="where tokens leave, each a part of the table: default, output (after the tower), a layer, or "
        "stages as in 3,7",
    )
    p.add_argument(
        "--against",
        metavar="NAME",
        action="append",
        default=[],
        help="also compare every method with this one, item by item; may be given several times",
    )
    p.add_argument("--positions", choices=("original", "compact"), default="original")
    p.add_argument("--seeds", type=cli.count, default=SEEDS, help=f"runs of what is random ({SEEDS})")
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), help="default: bfloat16 on CUDA, else float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument(
        "--threads",
        type=cli.threads,
        default=1,
        help="CPU threads of each process (1: then more processes change no digit)",
    )
    p.add_argument(
        "--rounds",
        type=cli.seed,
        default=5,
        help="timed batches of every row (5), or 0; from 10 on rows are also compared at equal throughput",
    )
    p.add_argument(
        "--seed", type=cli.seed, default=0, help="of the order within rounds and of random weights"
    )
    p.add_argument("--json", metavar="FILE", help="also write the result there")
    p.add_argument("--items", metavar="FILE", help="the score of every item in every row, as .npz")
    p.add_argument("--plot", metavar="FILE", help=f"quality against cost, as {' '.join(plot.SUFFIXES)}")
    p.add_argument("--verdict", metavar="FILE", help="a text that says who wins and who loses where")
    return p


class Run:
    """An evaluation from its arguments to its end; the constructor raises UsageError for wrong arguments."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.command = args, cli.command()
        layers = cli.unique(args.layer)
        self.flops = cli.unique(getattr(args, "flops", []))
        self.cases = make_cases(
            cli.unique(args.method),
            cli.unique(args.keep_ratio),
            layers,
            args.seeds,
            args.positions,
            self.flops,
        )
        refuse_unknown(self.cases, args.against)
        if args.items and not self.trained:
            raise cli.UsageError("--items holds quality, of which random weights have none; leave it out")
        if args.plot and not self.trained:
            raise cli.UsageError("--plot draws quality, of which random weights have none; leave it out")
        if args.plot and not args.rounds:
            raise cli.UsageError("--plot draws throughput; give at least one of --rounds")
        cli.require("rich", "scikit-learn", *(["matplotlib"] if args.plot else []))
        self.files = {
            "json": cli.writable(args.json),
            "plot": cli.writable(args.plot, *plot.SUFFIXES),
            "verdict": cli.writable(args.verdict),
            "items": cli.writable(args.items, ".npz"),
        }
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(args.threads)
        torch.manual_seed(args.seed)
        self.processes = Processes(args.device)
        self.device = self.processes.device
        self.dtype = args.dtype or ("bfloat16" if self.device.type == "cuda" else "float32")

    @property
    def trained(self) -> bool:
        return self.args.weights == "pretrained"

    def without_smaller(self, takes: Callable[[Case], bool]) -> None:
        """Leave out the baseline of smaller images where the model takes none of such a size, and say so."""
        smaller = [case for case in self.cases if case.method == DOWNSAMPLE]
        if all(map(takes, smaller)):
            return
        self.cases = [case for case in self.cases if case not in smaller]
        if self.processes.main:
            reason = "how images are made smaller for this model is not known"
            print(f"no row {DOWNSAMPLE}: {reason}", file=sys.stderr)

    def finish(
        self,
        about: dict,
        found: dict[str, Quality],
        work: dict[tuple, dict],
        metrics: Sequence[str],
        columns: Sequence[report.Column],
        speed: str,
        also: Sequence[str] = (),
    ) -> None:
        """Print and write everything; in the main process. `metrics` are compared, the first is drawn.

        `also` are compared at equal throughput beside them, where it was timed often enough.
        """
        args = self.args
        rows = make_rows(self.cases, found, work, metrics)
        compared = compare(self.cases, found)
        pairs = paired(self.cases, found, cli.unique(args.against))
        timed = metrics and args.rounds >= ROUNDS
        equal = at_equal_throughput(rows, [*metrics, *also], speed) if timed else []
        result = {
            **about,
            "command": self.command,
            "model": args.model,
            "weights": args.weights,
            "dtype": self.dtype,
            "positions": args.positions,
            "num_processes": self.processes.num,
            "seeds": args.seeds,
            "seed": args.seed,
            "rounds": args.rounds,
            "environment": environment(self.device),
            "interval": HOW,
            "rows": rows,
            "comparisons": compared,
            "against": pairs,
            "equal_throughput": equal,
        }
        title = f"{args.model} ({args.weights} weights) on {about['data']}, {about['num_items']} items"
        words = verdict(title, rows, compared, metrics, equal, pairs)
        several = f"{self.processes.num} process{'es' if self.processes.num > 1 else ''}"
        notes = [f"{several}; what is random: the mean of {args.seeds} seeds."]
        notes += [
            f"{row['method']}, layer {row['layer']}, at {amount(row)}: {row['flop_problem']}."
            for row in rows
            if "flop_problem" in row
        ]
        report.print_table(title, columns, rows, notes, ("flops" if self.flops else "keep_ratio", "layer"))
        print(words)
        if self.files["plot"] and metrics:
            pareto.plot(self.files["plot"], title, rows, metrics[0], speed)
        if self.files["verdict"]:
            with replacing(self.files["verdict"]) as path:
                path.write_text(words, encoding="utf-8")
        if self.files["items"]:
            write_items(self.files["items"], self.cases, found)
        if self.files["json"]:
            report.write_json(self.files["json"], result)
        report.print_json(result)


def main(options: argparse.ArgumentParser, evaluate: Callable[[Run], None], argv: list[str]) -> None:
    """Run an evaluation as `argv` says; its processes end together, or separately after an error."""
    run = Run(options.parse_args(argv))
    try:
        evaluate(run)
        run.processes.wait()
    finally:
        run.processes.close()


def columns(
    metrics: Sequence[str], unit: str, further: Sequence[str] = (), flops: bool = False
) -> list[report.Column]:
    """The columns of the printed table; the first of `metrics` comes with its lossyness.

    `flops`: rows were asked for by a share of FLOPs.
    """
    return [
        ("method", lambda row: row["method"]),
        ("keep", lambda row: "-" if row["keep_ratio"] is None else f"{row['keep_ratio']:g}"),
        *([("FLOPs", _share_of_flops)] if flops else []),
        ("layer", lambda row: row["layer"]),
        ("tokens", lambda row: f"{row['kept_tokens']}/{row['total_tokens']}"),
        *((name.replace("_", "\n"), report.measured(name, 4)) for name in (*metrics, *further)),
        *([("lossy-\nness", report.measured(f"{metrics[0]}_lossyness", 4))] if metrics else []),
        (f"GFLOP\n/{unit}", report.number(f"gflop_per_{unit}", 4)),
        ("FLOP\nratio", report.number("flop_ratio", 2)),
        (f"{unit}s\n/s", report.number(f"{unit}s_per_s", 1)),
        ("speed-\nup", report.number("speedup", 2)),
    ]


def _share_of_flops(row: dict) -> str:
    """The share that was reached, of that asked for."""
    return "-" if row["flops"] is None else f"{row['flop_share']:.3f}/{row['flops']:g}"
