#!/usr/bin/env python
"""Save captioned, questioned scenes as a `datasets` dataset.

    python scripts/testbed/make_data.py --out scenes --num 1000 --seed 0 --split test

`datasets.load_from_disk("scenes")` reads them again. The last line is the result as JSON.
"""

import json
import logging
import sys

# Transformers imports torchao where it is installed, and that logs what it lacks
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)

from hf_vtp.tools.bench import cli  # noqa: E402
from hf_vtp.tools.testbed.backgrounds import BACKGROUNDS  # noqa: E402
from hf_vtp.tools.testbed.dataset import TASKS, save_dataset  # noqa: E402


def parse(argv: list[str]):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="a folder that is empty or not there yet")
    parser.add_argument("--num", type=cli.count, default=1000, help="scenes (1000)")
    parser.add_argument("--seed", type=cli.seed, default=0)
    parser.add_argument(
        "--split", choices=tuple(BACKGROUNDS), default="train", help="decides the backgrounds"
    )
    parser.add_argument("--varied", action="store_true", help="pictures of different sizes")
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        default="scenes",
        help="scenes with all that is known of them; or, for eval_vlm.py and eval_clip.py, one question on "
        "each, or the class of the only thing",
    )
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = parse(argv)
    made = save_dataset(args.out, args.num, args.seed, args.split, args.varied, args.task)
    told = {"command": cli.command(argv), **vars(args), "num_rows": len(made)}
    if args.task == "scenes":
        told["num_questions"] = sum(map(len, made["questions"]))
    print(json.dumps(told))


if __name__ == "__main__":
    sys.exit(cli.run(main))
