#!/usr/bin/env python
"""Save captioned, questioned scenes as a `datasets` dataset.

    python scripts/testbed/make_data.py --out scenes --num 1000 --seed 0 --split test

`datasets.load_from_disk("scenes")` reads them again. The last line is the result as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("make-testbed-data"))
