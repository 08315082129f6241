#!/usr/bin/env python
"""Ask what is in classified images: a JSONL file for eval_vlm.py, every other question answered by yes or no.

    python scripts/make_questions.py --data images --out images/questions.jsonl --num 2000

--data is a folder with a folder of images for each class. Of every class the first images in the order of
their names are taken, equally many (from --skip on). Half of the questions, "What is in the image?", have the
class for an answer; the other half, "Is there a dog in the image?", ask for the class or, as often, for
another one. The file must lie in --data or above it. The last line is the result as JSON.
"""

import sys

from hf_vtp.tools.commands import run

if __name__ == "__main__":
    sys.exit(run("make-questions"))
