"""Fill the template of model cards with measured numbers.

With --all, the cards that FOLDER/cards.json lists by file name, each with the model's name on the Hub and the
files of its results in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from huggingface_hub import ModelCard

from ...files import replacing
from ...hub import is_repo_id
from ..bench import cli
from ..cards.card import make_card, read_result


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="the base model's name on the Hub")
    p.add_argument("--results", nargs="+", default=[], help="JSON files of bench-* and eval-*")
    p.add_argument("--out", default="README.md", help="the card's file (README.md)")
    p.add_argument("--all", metavar="FOLDER", help="instead: all cards that its cards.json lists")
    return p


def listed(folder: Path) -> dict[str, ModelCard]:
    """The cards that `folder`/cards.json lists, by file name; raises UsageError where it lists none."""
    try:
        rows = json.loads((folder / "cards.json").read_text(encoding="utf-8"))
        named = {
            name: (row["model"], [folder / path for path in row["results"]]) for name, row in rows.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise cli.UsageError(
            f"{folder / 'cards.json'} cannot be used ({cli.reason(error)}); give a folder in which it lists "
            "cards, each with its model and results"
        ) from None
    return {name: card(model, results, folder) for name, (model, results) in named.items()}


def card(model: str, results: list, folder: Path) -> ModelCard:
    """A card that lies in `folder`."""
    measured = [read_result(path) for path in results]
    return make_card(model, measured, folder, name=f"{model.split('/')[-1]}, image tokens pruned")


def write(made: ModelCard, target: Path) -> None:
    with replacing(target) as path:
        path.write_text(str(made), encoding="utf-8")
    print(target)


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    if args.all is not None:
        if args.model is not None or args.results:
            raise cli.UsageError("--all makes every card of a folder; leave out --model and --results")
        for name, made in listed(Path(args.all)).items():
            write(made, Path(args.all) / name)
        return
    if args.model is None:
        raise cli.UsageError("--model is missing; give the base model's name on the Hub, or --all FOLDER")
    if not is_repo_id(args.model) or os.path.isdir(args.model):
        raise cli.UsageError(f"--model must be a name on the Hub such as user/repo, not {args.model!r}")
    if not args.results:
        raise cli.UsageError("--model needs --results, the JSON files that the benchmarks wrote")
    target = cli.writable(args.out, ".md")
    write(card(args.model, args.results, target.parent), target)
