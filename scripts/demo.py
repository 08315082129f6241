#!/usr/bin/env python
"""A page to try pruning on, in a browser on this machine.

    python scripts/demo.py                          on the testbed's models, offline
    python scripts/demo.py --model my/folder        on a model of yours, or one on the Hub

It needs `pip install "hf-vtp[demo]"`. `scripts/demo` is the same page as a Space: see scripts/push_demo.py.
"""

import sys
from pathlib import Path

from hf_vtp.tools.commands import run

TESTBED = Path(__file__).resolve().parent.parent / "tests" / "testbed"

if __name__ == "__main__":
    sys.exit(run("demo", "--testbed", str(TESTBED)))
