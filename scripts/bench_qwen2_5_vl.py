#!/usr/bin/env python
"""What pruning buys on Qwen2.5-VL at several resolutions: inside the tower, and only after it.

    python scripts/bench_qwen2_5_vl.py --weights random       the 7B geometry, nothing is downloaded
    python scripts/bench_qwen2_5_vl.py --weights random --model qwen2_5_vl-small --resolution 256 1024
    python scripts/bench_qwen2_5_vl.py --model folder/ --resolution 4096 16384 --json out.json --plot out.png

`--layer default` prunes inside the tower, `--layer output` after its last block. The last line of stdout is
the result as one JSON object.
"""

from __future__ import annotations

import sys

from hf_vtp.tools.bench import cli, script_vlm

DEFAULT_MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


def main(argv: list[str]) -> None:
    options = script_vlm.parser("bench_qwen2_5_vl.py", __doc__, DEFAULT_MODEL, [None, "output"])
    options.add_argument(
        "--resolution",
        type=cli.count,
        nargs="+",
        default=[256, 1024, 4096],
        metavar="TOKENS",
        help="visual tokens of an image, about: the nearest near-square grid is taken (256 1024 4096)",
    )
    script_vlm.run("qwen2_5_vl", options, argv)


if __name__ == "__main__":
    sys.exit(cli.run(main))
