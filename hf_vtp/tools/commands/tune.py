"""Find the pruning that makes a model fastest while it stays as close to itself as you say.

The images need no labels. `apply_vtp(model, "half/")` then prunes so. The last line of stdout is the report
as JSON.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.utils import logging

from ... import list_methods
from ...hub import NAME
from ...tuning import tune
from ...tuning.api import BY
from ...tuning.candidates import METHODS_TRIED
from ...tuning.inputs import QUESTION
from ..bench import cli, report
from ..bench.cli import UsageError
from ..bench.images import find_images
from ..loading import load, without_code
from ..models import load_with_processor
from ..prompts import Prompts
from ..towers import images_for, is_tower, load_embedder

INSTEAD = "give a folder or a name with the weights and what makes its inputs"


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="a folder, or a name on the Hub or in its cache")
    p.add_argument("--images", help="a folder or a dataset; default: the photographs inside scikit-image")
    p.add_argument("--num-images", type=cli.count, default=300, help="use at most so many images (300)")
    p.add_argument("--target", type=float, required=True, help="cosine or agreement to keep, in (0, 1)")
    p.add_argument("--question", default=QUESTION, help=f"asked of every image ({QUESTION})")
    p.add_argument("--prompt", help="template with {image} and {question} instead of the chat template")
    p.add_argument("--max-new-tokens", type=cli.count, default=16, help="of an answer (16)")
    p.add_argument(
        "--method", nargs="+", default=list(METHODS_TRIED), help=f"to try, of {', '.join(list_methods())}"
    )
    p.add_argument(
        "--layer",
        type=cli.layer,
        nargs="+",
        help="places to try: default (a method's own), output, a layer, or stages as in 3,7; if not given, "
        "some of each",
    )
    p.add_argument("--positions", choices=("original", "compact"), default="original")
    p.add_argument("--by", choices=BY, default=BY[0], help="what is to be least: time, or FLOPs")
    p.add_argument("--confidence", type=float, default=0.95, help="that the target holds (0.95)")
    p.add_argument("--budget", type=cli.count, default=60, help="configs the search may try (60)")
    p.add_argument("--batch-size", type=cli.count, default=8)
    p.add_argument("--rounds", type=cli.count, default=7, help="timed batches of every finalist (7)")
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), help="default: bfloat16 on CUDA, else float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--threads", type=cli.threads, help="CPU threads; default: torch's choice")
    p.add_argument("--seed", type=cli.seed, default=0, help="of which images are for what, and of the order")
    p.add_argument("--out", metavar="FOLDER", help="write the config there, for apply_vtp")
    p.add_argument("--json", metavar="FILE", help="also write the report there")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    cli.require("rich", "scikit-learn")
    json_file, out = cli.writable(args.json), _folder(args.out)
    device = cli.device(args.device)
    dtype = cli.DTYPES[args.dtype or ("bfloat16" if device.type == "cuda" else "float32")]
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    found = find_images(args.images)
    config = load(args.model, without_code(AutoConfig), INSTEAD)
    make = _tower if is_tower(config) else _vlm
    model, images = make(args, found, dtype, device)
    names = ("by", "confidence", "budget", "batch_size", "rounds", "seed", "positions", "max_new_tokens")
    told = {name: getattr(args, name) for name in names}
    told |= {"methods": cli.unique(args.method), "layers": args.layer and cli.unique(args.layer)}
    try:
        tuned = tune(model, images, args.target, progress=sys.stderr.isatty(), **told)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(cli.first_sentence(error)) from None
    tuned.report.print()
    result = {
        "command": cli.command(),
        "model": args.model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "images": found.source,
        "num_skipped": len(found.skipped),
        "config": tuned.config.to_dict(),
        **tuned.report.to_dict(),
    }
    if out:
        print(f"wrote {tuned.config.save_pretrained(out)}")
    if json_file:
        report.write_json(json_file, result)
    report.print_json(result)


def _tower(args, found, dtype, device):
    """A vision model with what makes its embedding, and its inputs."""
    tower = load_embedder(args.model, "pretrained", dtype, device)
    return tower.model, images_for(tower, args.model, "pretrained", found.decoded(args.num_images))


def _vlm(args, found, dtype, device):
    """The model, and prompts in batches."""
    loaded = load_with_processor(args.model, device, dtype, answers=True)
    prompts = Prompts(loaded.model, loaded.processor, args.prompt and args.prompt.replace("\\n", "\n"))
    images = list(found.decoded(args.num_images))
    parts = [images[i : i + args.batch_size] for i in range(0, len(images), args.batch_size)]
    return loaded.model, [prompts(part, [args.question] * len(part))[0] for part in parts]


def _folder(name: str | None) -> Path | None:
    """The folder for the config, once it is known that it can be made; nothing is made yet."""
    if name is None:
        return None
    folder = cli.folder(name, "--out")
    if folder.is_dir():
        cli.writable(str(folder / NAME))
    return folder
