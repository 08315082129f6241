"""Train one of the testbed's models from a seed, on scenes that are drawn while it learns.

The same command goes on where a run was stopped. The last line of stdout is the result as one JSON object.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from transformers.utils import logging

from ..bench import cli, report
from ..shipped import VARIABLE, shipped_folder
from ..testbed import card
from ..testbed.load import load, save
from ..testbed.recipes import RECIPES
from ..testbed.training import KINDS, train


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("model", choices=(*KINDS, CAPTIONS))
    p.add_argument(
        "--out", required=True, help="folder for weights and card; OUT/run holds checkpoints and log"
    )
    p.add_argument(
        "--clip", help=f"folder of the CLIP that LLaVA begins with; default: clip in what {VARIABLE} says"
    )
    p.add_argument("--tower", help="for captions: a ViT, DeiT or DINOv2 classifier; a folder, or a name on the Hub")
    p.add_argument("--captions", help="for captions: a data set with the splits train and validation")
    p.add_argument("--recipe", choices=tuple(RECIPES), help="default: gpu on a GPU, else cpu")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--seed", type=cli.seed, default=0, help="of weights, scenes and their order")
    p.add_argument("--num-eval", type=cli.count, default=1000, help="fresh test scenes for the card (1000)")
    p.add_argument(
        "--workers",
        type=cli.threads,
        help="processes that draw scenes; default: 1, or one a core beside a GPU",
    )
    p.add_argument("--threads", type=cli.threads, help="CPU threads; default: torch's choice")
    p.add_argument("--compile", action="store_true", help="compile the layers; needs a C++ compiler on a CPU")
    p.add_argument("--note", default="", help="words for the card, behind how long it took")
    return p


def clip_folder(given: str | None) -> str | Path:
    """The folder of the CLIP that a LLaVA begins with; raises UsageError where nobody says it."""
    folder = given or shipped_folder("clip")
    if folder is None:
        raise cli.UsageError("a llava begins with a trained CLIP; give its folder with --clip")
    return folder


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    device = cli.device(args.device)
    name = args.recipe or ("gpu" if device.type == "cuda" else "cpu")
    recipe = RECIPES[name][args.model]
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    out = Path(args.out)
    how = {"command": cli.command(), "recipe": name, **vars(recipe), "seed": args.seed}
    result = (learn_captions if args.model == CAPTIONS else learn_scenes)(args, recipe, out, device, how)
    report.print_json(result)


def prepare(out: Path) -> Path:
    """The folder of checkpoints and log; raises UsageError where something is in the way."""
    run = out / "run"
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cli.UsageError(f"{out} cannot be made ({error.strerror}); choose another --out") from None
    for file in (*out.iterdir(), *run.iterdir()):
        if not file.is_dir():
            cli.writable(str(file))  # what is no regular file would be written into, or waited for
    return run


def taken(args: argparse.Namespace, trained: Trained) -> dict:
    """What the card says of a training's cost."""
    note = args.note and f", {args.note}"
    return {"seconds": round(trained.seconds), "threads": torch.get_num_threads(), "note": note}


def learn_scenes(
    args: argparse.Namespace, recipe: Recipe, out: Path, device: torch.device, how: dict
) -> dict:
    """Train, save and measure a model of KINDS."""
    cli.require("scikit-image")
    clip = load(clip_folder(args.clip)) if args.model == "llava" else None
    if clip is not None and clip.model_type != "clip":
        raise cli.UsageError(f"{args.clip} holds a {clip.model_type}; give the folder of a CLIP with --clip")
    run = prepare(out)
    workers = args.workers or (1 if device.type == "cpu" else os.cpu_count())
    task = scenes(args.model, args.seed, clip and clip.model, workers)
    trained = train(task, recipe, run, device, args.seed, args.compile)
    save(trained.model, out)
    finished = load(out, device=device)  # what is shipped, float16 and all
    return card.write(out, finished, how | taken(args, trained), card.measure(finished, args.num_eval))


def learn_captions(
    args: argparse.Namespace, recipe: Recipe, out: Path, device: torch.device, how: dict
) -> dict:
    """Train, save and measure a captioner."""
    if not args.tower or not args.captions:
        raise cli.UsageError("captions need a ViT with --tower and captioned photographs with --captions")
    run = prepare(out)
    tower = load_tower(args.tower, device)
    task, tokenizer = captions(args.captions, tower, run, args.seed, recipe.batch_size)
    trained = train(task, recipe, run, device, args.seed, args.compile)
    save_captioner(trained.model, out, tokenizer, tower.image_processor)
    return caption_card.write(out, args, how | taken(args, trained), trained)
