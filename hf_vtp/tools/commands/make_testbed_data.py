"""Save captioned, questioned scenes as a `datasets` dataset.

`datasets.load_from_disk("scenes")` reads them again. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json

from ..bench import cli
from ..testbed.backgrounds import BACKGROUNDS
from ..testbed.dataset import TASKS, save_dataset


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True, help="a folder that is empty or not there yet")
    p.add_argument("--num", type=cli.count, default=1000, help="scenes (1000)")
    p.add_argument("--seed", type=cli.seed, default=0)
    p.add_argument("--split", choices=tuple(BACKGROUNDS), default="train", help="decides the backgrounds")
    p.add_argument("--varied", action="store_true", help="pictures of different sizes")
    p.add_argument(
        "--task",
        choices=tuple(TASKS),
        default="scenes",
        help="scenes with all that is known of them; or, for eval-vlm and eval-clip, one question on "
        "each, or the class of the only thing",
    )
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    made = save_dataset(args.out, args.num, args.seed, args.split, args.varied, args.task)
    result = {"command": cli.command(), **vars(args), "num_rows": len(made)}
    if args.task == "scenes":
        result["num_questions"] = sum(map(len, made["questions"]))
    print(json.dumps(result))
