"""A page to try pruning on, in a browser on this machine.

It needs `pip install "hf-vtp[demo]"`.
"""

from __future__ import annotations

import argparse
import importlib.util

from ..bench import cli
from ..shipped import ANSWERING, STAND_INS, TESTBED_HELP


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--model",
        default=ANSWERING,
        help=f"a folder, a name on the Hub or of {', '.join(STAND_INS)}",
    )
    p.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets others in, to the models of a list (127.0.0.1)"
    )
    p.add_argument("--port", type=cli.port, help="default: the first free one from 7860")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--testbed", metavar="FOLDER", help=TESTBED_HELP)
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    device = cli.device(args.device)
    if importlib.util.find_spec("gradio") is None:
        raise cli.UsageError('gradio is not installed; run pip install "hf-vtp[demo]"')
    from ..demo import page

    try:
        page.serve(args.model, args.host, args.port, device=device, testbed=args.testbed)
    except (OSError, ValueError) as error:
        raise cli.UsageError(
            f"the page cannot be opened ({cli.first_sentence(error)}); give another --host or --port"
        ) from None
