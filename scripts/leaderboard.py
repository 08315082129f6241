#!/usr/bin/env python
"""Every method on every model of a file, at equal FLOPs or equal numbers of tokens, beside the floors.

python scripts/leaderboard.py --data ../data --folder made=artifacts
python scripts/leaderboard.py --only deit_tiny --method vtp tome
python scripts/leaderboard.py --render
"""

import sys
from pathlib import Path

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent / "dev"))
    import tome_published_row  # a row that is not the library's

    tome_published_row.add()
    sys.exit(run("leaderboard"))
