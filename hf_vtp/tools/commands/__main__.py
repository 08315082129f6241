"""`python -m hf_vtp.tools.commands` is `hf-vtp`, also where that was not installed."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
