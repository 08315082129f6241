#!/usr/bin/env python
"""A page to try pruning on, in a browser on this machine.

    python scripts/demo.py                          on the testbed's models, offline
    python scripts/demo.py --model my/folder        on a model of yours, or one on the Hub

It needs `pip install "hf-vtp[demo]"`. `scripts/demo` is the same page as a Space: see scripts/push_demo.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from hf_vtp.tools.bench import cli

APP = Path(__file__).resolve().parent / "demo" / "app.py"


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(prog="demo.py", description=__doc__.splitlines()[0])
    p.add_argument("--model", default="llava", help="clip, llava, qwen2_5_vl, a folder or a name on the Hub")
    p.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 lets others in, to the models of a list (127.0.0.1)"
    )
    p.add_argument("--port", type=cli.port, help="default: the first free one from 7860")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    return p


def load_app():
    """scripts/demo/app.py as a module; raises UsageError where gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise cli.UsageError('gradio is not installed; run pip install "hf-vtp[demo]"')
    spec = importlib.util.spec_from_file_location("hf_vtp_demo_app", APP)
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    return app


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    device = cli.device(args.device)
    app = load_app()
    try:
        app.serve(args.model, args.host, args.port, device=device)
    except (OSError, ValueError) as error:
        raise cli.UsageError(
            f"the page cannot be opened ({cli.first_sentence(error)}); give another --host or --port"
        ) from None


if __name__ == "__main__":
    sys.exit(cli.run(main))
