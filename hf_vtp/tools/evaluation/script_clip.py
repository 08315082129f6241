"""eval-clip from its arguments to its result: models that compare images with texts, and classifiers."""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from ..bench import cli
from ..bench.cli import UsageError
from ..cases import refuse_impossible
from ..classifiers import classifier_class, label_names
from ..models import load_config
from ..towers import INSTEAD, load_embedder, processor_of
from . import retrieval
from .cases import Case
from .clip import VisionSide
from .embed import embed_all, score, score_classifier
from .flop_cases import at_equal_flops
from .items import EVERYTHING, ImageData, decoded, open_images
from .labels import BY_NUMBER, match_labels
from .rows import Quality, mean_count
from .script import Run, columns, parser
from .texts import TextEncoder
from .work import measure_work

RECALLS = tuple(f"{way}_recall_at_{k}" for way in ("i2t", "t2i") for k in retrieval.RECALL_AT)
COSINES = ("cosine_mean", "cosine_p5", "cosine_min")
PROMPTS = ("a photo of a {}.",)


def options(doc: str):
    p = parser(doc, flops=True)
    p.epilog = doc.partition("\n")[2].strip("\n")
    p.formatter_class = argparse.RawDescriptionHelpFormatter
    p.add_argument("--data", required=True, help="a folder, file or dataset of images; see below")
    p.add_argument("--num-images", type=cli.count, default=EVERYTHING, help="the first so many; default: all")
    p.add_argument("--label-column", help="default: the one of class labels")
    p.add_argument("--caption-column", help="default: captions, caption, text or sentences")
    p.add_argument(
        "--classes", metavar="FILE", help="names of the classes, one a line, where the data has none"
    )
    p.add_argument(
        "--prompts", metavar="FILE", help="texts with {} for the class, one a line; their mean counts"
    )
    p.add_argument("--batch-size", type=cli.count, default=32)
    return p


@torch.inference_mode()
def evaluate(run: Run) -> None:
    args, processes = run.args, run.processes
    prompts = lines(args.prompts, "--prompts") or list(PROMPTS)
    if any("{}" not in prompt for prompt in prompts):
        raise UsageError("every line of --prompts needs {} where the class goes")
    dtype = cli.DTYPES[run.dtype]
    config = load_config(args.model, args.weights, INSTEAD)
    known = label_names(config) if classifier_class(config) else None
    data = processes.agree(
        lambda: open_images(
            args.data,
            args.split,
            args.num_images,
            args.label_column,
            args.caption_column,
            lines(args.classes, "--classes"),
            known,
        )
    )
    matched, how = None, None
    if known and data.label:
        matched, how = processes.agree(lambda: match(data, known))
    tower = load_embedder(args.model, args.weights, dtype, run.device)
    refuse_impossible(tower.model, [case.config for case in run.cases])
    vision = VisionSide(tower, processor_of(args.model, args.weights, tower.model.config))
    run.without_smaller(vision.takes)
    if run.flops:
        images = processes.agree(lambda: first_images(run, data))
        run.cases = at_equal_flops(vision, run.cases, images)
    if known:
        wanted = ["classification"]
    else:
        wanted = (["zero-shot"] if data.label else []) + (["retrieval"] if data.captions else [])
    skipped, count = [], 0
    if run.trained and known:
        done, skipped = embed_all(run, vision, None, data)
        count = len(done)
        right = matched and [matched[one.label] for one in done]
        found = processes.on_main(lambda: score_classifier(run.cases, done, right, len(known)))
    elif run.trained:
        text = TextEncoder(args.model, run.device, dtype) if wanted else None
        classes = text.classes(data.classes, prompts) if data.label else None
        done, skipped = embed_all(run, vision, text, data)
        count = len(done)
        found = processes.on_main(lambda: score(run.cases, done, classes))
    else:
        found = processes.on_main(lambda: untrained(run, vision, data))
    work = processes.on_main(lambda: measure(run, vision, data))
    if not processes.main:
        return
    there = found[run.cases[0].name].values
    accuracies = [name for name in ("top_1", "top_5", "agreement", *RECALLS) if name in there]
    compared = accuracies or [name for name in COSINES[:1] if name in there]
    about = {
        "evaluation": "clip",
        "model_type": vision.model.config.model_type,
        "data": data.source,
        "tasks": wanted,
        "num_items": count,
        "num_skipped": len(skipped),
        "num_classes": len(known or data.classes),
        "labels": how,
        "prompts": prompts if data.label and not known else [],
        "batch_size": args.batch_size,
    }
    further = [name for name in COSINES if name not in compared]
    table = columns(compared, "image", further, bool(run.flops))
    also = [name for name in COSINES[:1] if name not in compared]
    run.finish(about, found, work, compared, table, "images_per_s", also)


def match(data: ImageData, known: list[str]) -> tuple[list[int], str]:
    """For each class of the data the label of a classifier that knows `known`, and how it was found."""
    if not data.named:
        return list(range(len(known))), BY_NUMBER
    return match_labels(data.classes, known, data.source)


def untrained(run: Run, vision: VisionSide, data: ImageData) -> dict[str, Quality]:
    """No quality, only the number of tokens kept of the first images."""
    inputs = vision.inputs(first_images(run, data), run.cases)
    return {case.name: Quality({}, {}, vision.embed(case, inputs)[1]) for case in run.cases}


def measure(run: Run, vision: VisionSide, data: ImageData) -> dict[tuple, dict]:
    """Time and FLOPs on the first batch, and the number of tokens of an unpruned image."""
    images = first_images(run, data)
    inputs = vision.inputs(images, run.cases)

    def forward(case: Case):
        return vision.forward(case, inputs)

    kwargs = {"size": len(images), "unit": "image", "rounds": run.args.rounds, "seed": run.args.seed}
    work = measure_work(vision.model, run.cases, forward, forward, **kwargs)
    total = mean_count(vision.num_tokens(inputs[None]))
    return {key: {**row, "total_tokens": total} for key, row in work.items()}


def first_images(run: Run, data: ImageData) -> list[Image.Image]:
    """One batch of images that are not broken; raises UsageError if there is none."""
    good = (image for item in data if (image := decoded(item)) is not None)
    images = list(islice(good, run.args.batch_size))
    if not images:
        raise UsageError(f"every image of {data.source} is broken")
    return images


def lines(path: str | None, option: str) -> list[str] | None:
    """The lines of a file that are not empty; None without a file."""
    if path is None:
        return None
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path} cannot be read: {cli.reason(error)}") from None
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise UsageError(f"{option} {path} is empty; give one a line")
    return found
