#!/usr/bin/env python
"""Fill the template of model cards with measured numbers.

python scripts/make_model_card.py               the committed cards, as model_cards/cards.json lists
python scripts/make_model_card.py --model openai/clip-vit-base-patch16 --results out.json --out README.md
"""

import sys
from pathlib import Path

from hf_vtp.tools.commands import run

CARDS = Path(__file__).resolve().parent.parent / "model_cards"

if __name__ == "__main__":
    sys.exit(run("make-model-card", *([] if sys.argv[1:] else ["--all", str(CARDS)])))
