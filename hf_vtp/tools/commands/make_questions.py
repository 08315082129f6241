"""Ask what is in classified images: a JSONL file for eval-vlm, every other question answered by yes or no.

--data is a folder with a folder of images for each class. Of every class the first images in the order of
their names are taken, equally many (from --skip on). Half of the questions, "What is in the image?", have the
class for an answer; the other half, "Is there a dog in the image?", ask for the class or, as often, for
another one. The file must lie in --data or above it. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from PIL import Image

from ...files import replacing
from ..bench import cli

SUFFIXES = tuple(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--data", required=True, help="a folder with a folder of images for each class")
    p.add_argument("--out", required=True, help="the .jsonl file, in --data or above it")
    p.add_argument("--num", type=cli.count, default=2000, help="a multiple of the classes (2000)")
    p.add_argument("--skip", type=int, default=0, help="images of every class to pass over (0)")
    p.add_argument("--seed", type=cli.seed, default=0)
    return p


def named(name: str) -> str:
    """The class with its article."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def pictures(folder: Path, num: int, skip: int) -> dict[str, list[Path]]:
    """By class, the images to ask about; raises UsageError where they are too few."""
    if not folder.is_dir():
        raise cli.UsageError(f"there is no folder {folder}; give one with a folder of images for each class")
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2 or num % len(classes):
        raise cli.UsageError(
            f"--num must be a multiple of the {len(classes)} classes in {folder}, at least two, not {num}"
        )
    found = {}
    for path in classes:
        images = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        found[path.name] = images[skip:][: num // len(classes)]
        if len(found[path.name]) < num // len(classes):
            raise cli.UsageError(f"{path} holds {len(images)} images, too few for --num {num} --skip {skip}")
    return found


def questions(images: dict[str, list[Path]], seed: int) -> list[dict]:
    """Question and answer for each image, shuffled."""
    random, asked = Random(seed), []
    pairs = [(name, path) for name, paths in images.items() for path in paths]
    random.shuffle(pairs)
    for i, (name, path) in enumerate(pairs):
        if i % 2 == 0:
            asked.append((path, "What is in the image?", named(name)))
            continue
        yes = random.random() < 0.5
        other = name if yes else random.choice([n for n in images if n != name])
        asked.append((path, f"Is there {named(other)} in the image?", "yes" if yes else "no"))
    return [{"image": p, "question": question, "answers": [answer]} for p, question, answer in asked]


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    out, data = cli.writable(args.out, ".jsonl"), Path(args.data)
    if args.skip < 0:
        raise cli.UsageError(f"--skip must be at least 0, not {args.skip}")
    if not data.resolve().is_relative_to(Path(args.out).resolve().parent):
        raise cli.UsageError(f"--out must lie in {data} or above it, not at {args.out}")
    rows = questions(pictures(data, args.num, args.skip), args.seed)
    base = Path(args.out).resolve().parent
    for i, row in enumerate(rows):
        row |= {"id": i, "image": row["image"].resolve().relative_to(base).as_posix()}
    with replacing(out) as path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(json.dumps({"command": cli.command(), **vars(args), "num_questions": len(rows)}))
