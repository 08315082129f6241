#!/usr/bin/env python
"""Save captioned pictures as a dataset, for training a captioner and for eval_vlm.py.

    python scripts/testbed/make_caption_data.py --captions flickr8k/captions.json --out runs/captions

`datasets.load_dataset("runs/captions")` reads them again. The last line is the result as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("make-caption-data"))
