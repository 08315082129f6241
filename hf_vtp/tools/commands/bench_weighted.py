"""What size-weighted attention costs: as a bias on the logits, or as one more channel of queries and keys.

One attention of CLIP ViT-B/16 and ViT-L/14-336 on random numbers. The last line of stdout is the result as
one JSON object.
"""

from __future__ import annotations

import argparse

import torch

from ...environment import environment
from ..bench import cli, report, weighted


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--batch-size", type=cli.count, nargs="+", default=[1, 8])
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), default="float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--threads", type=cli.threads, help="CPU threads; default: torch's choice")
    p.add_argument("--rounds", type=cli.count, default=200, help="timed calls of every row (200)")
    p.add_argument("--seed", type=cli.seed, default=0, help="of the numbers and of the order within rounds")
    p.add_argument("--json", metavar="FILE", help="also write the result there")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    cli.require("rich")
    json_file, device = cli.writable(args.json), cli.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for model in weighted.SHAPES:
        for size in cli.unique(args.batch_size):
            rows += weighted.measure(model, size, cli.DTYPES[args.dtype], device, args.rounds, args.seed)
    result = {
        "benchmark": "weighted_attention",
        "command": cli.command(),
        "dtype": args.dtype,
        "rounds": args.rounds,
        "seed": args.seed,
        "environment": environment(device),
        "rows": rows,
    }
    machine = result["environment"]
    title = f"size-weighted attention under SDPA, {args.dtype}\n{machine['device_name']}"
    notes = [f"{args.rounds} interleaved rounds, seed {args.seed}. Error: largest difference from the bias."]
    report.print_table(title, weighted.COLUMNS, rows, notes, ("model", "batch_size"))
    if json_file:
        report.write_json(json_file, result)
    report.print_json(result)
