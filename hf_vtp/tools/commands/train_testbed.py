r"""Train one of the testbed's models from a seed, on scenes drawn while it learns or on captioned pictures.

The same command goes on where a run was stopped. The last line of stdout is the result as one JSON object.

`captions` makes a LLaVA: the tower of a ViT classifier, which learns nothing, a new projector, and a small
Llama that reads the state before the tower's last layer. --captions is a dataset with the splits train and
validation, an image and a column of captions, as `hf-vtp make-caption-data` makes it. The tower reads each
picture once, and OUT/run keeps what it saw. A row in training is one picture with all its captions, each of
which sees the picture and itself. Weights of such a model are no part of this project, since the licences of
captioned photographs seldom allow it. What pruning costs it:

    hf-vtp eval-vlm --model OUT --data DATA --split validation --question "Describe the image." \
        --metric cider --max-new-tokens 25 --keep-ratio 0.5 0.25 0.125 --layer default output
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from transformers.utils import logging

from ..bench import cli, report
from ..models import Loaded, load_with_processor
from ..processors import num_prefix_tokens
from ..shipped import VARIABLE, shipped_folder
from ..testbed import caption_card, captioner, card
from ..testbed.load import load, save
from ..testbed.recipes import RECIPES, Recipe
from ..testbed.training import KINDS, Trained, last_logged, scenes, train

CAPTIONS = "captions"


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("model", choices=(*KINDS, CAPTIONS))
    p.add_argument(
        "--out", required=True, help="folder for weights and card; OUT/run holds checkpoints and log"
    )
    p.add_argument(
        "--clip", help=f"folder of the CLIP that LLaVA begins with; default: clip in what {VARIABLE} says"
    )
    p.add_argument("--tower", help="of captions: a ViT classifier, as a folder or a name on the Hub")
    p.add_argument(
        "--captions", metavar="DATA", help="a dataset of captioned photographs, as a folder or a name"
    )
    p.add_argument("--recipe", choices=tuple(RECIPES), help="default: gpu on a GPU, else cpu")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--seed", type=cli.seed, default=0, help="of weights, scenes and their order")
    p.add_argument("--num-eval", type=cli.count, default=1000, help="test pictures for the card (1000)")
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
    tower = classifier(args.tower, device)
    run = prepare(out)
    task, tokenizer = captioner.captions(args.captions, tower, run, args.seed, recipe.batch_size)
    trained = train(task, recipe, run, device, args.seed, args.compile)
    captioner.save_captioner(trained.model, out, tokenizer, tower.image_processor)
    finished = load_with_processor(str(out), device)
    how |= {**taken(args, trained), **task.data, **captioner.SIZES, "words": len(tokenizer)}
    how |= {"pictures": len(task.batches.words), "last": last_logged(run)}
    measured = caption_card.measure(finished, args.captions, args.num_eval)
    return caption_card.write(out, finished, how, measured)


def classifier(name: str, device: torch.device) -> Loaded:
    """The tower of a captioner; raises UsageError for one that is no ViT with a [CLS]."""
    tower = load_with_processor(name, device)
    config = tower.model.config
    if config.model_type != "vit" or num_prefix_tokens(config) != 1:
        raise cli.UsageError(f"{name} is a {config.model_type}; give the folder of a ViT with --tower")
    return tower
