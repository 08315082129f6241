"""What each method costs by itself: time of scoring + selecting + merging, scratch memory, share of a tower.

Tokens are random numbers of CLIP ViT-L/14's width: time and memory, nothing about quality. The last line of
stdout is the result as one JSON object.
"""

from __future__ import annotations

import argparse

import torch
from tqdm import tqdm

from ... import list_methods
from ...environment import environment
from ..bench import cli, memory, methods, report


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--method", nargs="+", default=list(list_methods()), help="default: all of them")
    p.add_argument("--num-tokens", type=cli.count, nargs="+", default=[196, 576, 1024, 4096, 16384])
    p.add_argument("--keep-ratio", type=float, default=0.25)
    p.add_argument("--batch-size", type=cli.count, default=1)
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), default="float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--threads", type=cli.threads, help="CPU threads; default: torch's choice")
    p.add_argument("--rounds", type=cli.count, default=5, help="timed calls of every row (5)")
    p.add_argument("--seed", type=cli.seed, default=0, help="of the tokens and of the order within rounds")
    p.add_argument("--json", metavar="FILE", help="also write the result there")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    for name in args.method:
        if name not in list_methods():
            raise cli.UsageError(f"unknown method {name!r}; choose from {', '.join(list_methods())}")
    if not 0 < args.keep_ratio < 1:
        raise cli.UsageError(f"--keep-ratio must lie between 0 and 1, not {args.keep_ratio}")
    cli.require("rich")
    names, sizes = cli.unique(args.method), cli.unique(args.num_tokens)
    for size in sizes:
        methods.grid_of(size)
    json_file, device = cli.writable(args.json), cli.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    with tqdm(total=len(sizes) * len(names) * (args.rounds + 2), disable=None, leave=False) as bar:
        for size in sizes:
            bar.set_description(f"{size} tokens")
            what = (names, size, args.keep_ratio, args.batch_size, cli.DTYPES[args.dtype], device)
            rows += methods.measure(*what, args.rounds, args.seed, bar.update)
    result = {
        "benchmark": "methods",
        "command": cli.command(),
        "model": "one layer of CLIP ViT-L/14 on random tokens, times 24",
        "weights": "random",
        "dtype": args.dtype,
        "keep_ratio": args.keep_ratio,
        "rounds": args.rounds,
        "seed": args.seed,
        "memory": memory.meaning(device, "call"),
        "environment": environment(device),
        "rows": rows,
    }
    show(result)
    if json_file:
        report.write_json(json_file, result)
    report.print_json(result)


def show(result: dict) -> None:
    machine = result["environment"]
    cores = "" if machine["cuda"] else f", {machine['threads']} threads"
    title = f"scoring + selecting + merging, keep {result['keep_ratio']:g}, {result['dtype']}"
    notes = [
        f"{result['rounds']} interleaved rounds, seed {result['seed']}; medians, of the whole batch.",
        "Tower: 24 times one layer of CLIP ViT-L/14 on as many tokens. Stages: at how many of its layers a "
        "method acts by default; later ones see fewer tokens than the first, which was timed.",
        "Scratch: the peak of live tensor allocations during one call, without its input.",
    ]
    where = f"{machine['device_name']}{cores}"
    report.print_table(f"{title}\n{where}", methods.COLUMNS, result["rows"], notes, groups=("num_tokens",))
