#!/usr/bin/env python
"""Fill the template of model_cards/ with measured numbers.

python scripts/make_model_card.py                   the committed cards, as model_cards/cards.json lists
python scripts/make_model_card.py --model openai/clip-vit-base-patch16 --results out.json --out README.md
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from huggingface_hub import ModelCard

from hf_vtp.files import replacing
from hf_vtp.hub import is_repo_id
from hf_vtp.tools.bench import cli
from hf_vtp.tools.cards.card import make_card, read_result

CARDS = Path(__file__).resolve().parent.parent / "model_cards"
TEMPLATE = CARDS / "template.md"


def parser() -> cli.Parser:
    p = cli.Parser(prog="make_model_card.py", description=__doc__.splitlines()[0])
    p.add_argument("--model", help="the base model's name on the Hub; without it, all cards are made")
    p.add_argument("--results", nargs="+", default=[], help="JSON files of bench_*.py and eval_*.py")
    p.add_argument("--out", default="README.md", help="the card's file (README.md)")
    return p


def committed() -> dict[str, ModelCard]:
    """The cards that model_cards/cards.json lists, by file name."""
    listed = json.loads((CARDS / "cards.json").read_text())
    return {
        name: card(told["model"], [CARDS / path for path in told["results"]], CARDS)
        for name, told in listed.items()
    }


def card(model: str, results: list, folder: Path) -> ModelCard:
    """A card that lies in `folder`."""
    measured = [read_result(path) for path in results]
    return make_card(model, measured, TEMPLATE, folder, name=f"{model.split('/')[-1]}, image tokens pruned")


def write(made: ModelCard, target: Path) -> None:
    with replacing(target) as path:
        path.write_text(str(made), encoding="utf-8")
    print(target)


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    if args.model is None:
        if args.results:
            raise cli.UsageError("--results needs --model, the base model's name on the Hub")
        for name, made in committed().items():
            write(made, CARDS / name)
        return
    if not is_repo_id(args.model) or os.path.isdir(args.model):
        raise cli.UsageError(f"--model must be a name on the Hub such as user/repo, not {args.model!r}")
    if not args.results:
        raise cli.UsageError("--model needs --results, the JSON files that the benchmarks wrote")
    target = cli.writable(args.out, ".md")
    write(card(args.model, args.results, target.parent), target)


if __name__ == "__main__":
    sys.exit(cli.run(main))
