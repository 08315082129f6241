"""Every image through every case, in one pass over the data, and the metrics of what comes out."""

from __future__ import annotations

import sys

import torch
from tqdm import tqdm

from ..bench.cli import UsageError
from . import retrieval
from .cases import Case
from .clip import VisionSide
from .items import ImageData, decoded
from .rows import Quality
from .script import Run
from .texts import TextEncoder


def embed_all(
    run: Run, vision: VisionSide, text: TextEncoder | None, data: ImageData
) -> tuple[list, list[int]]:
    """(index, label, embeddings by case, tokens kept by case, captions' embeddings) of every image, in order.

    The data is read once: each batch runs through every case. Broken images are skipped; their numbers are
    the second result.
    """
    own, broken = run.processes.agree(lambda: embed_own(run, vision, text, data))
    done = run.processes.gather(own, key=lambda one: one[0])
    broken = run.processes.gather(broken, key=int)
    if not done:
        raise UsageError(f"every image of {data.source} is broken")
    if run.processes.main:
        for index in broken:
            print(f"skipped row {index}: the image is broken", file=sys.stderr)
    return done, broken


def embed_own(run: Run, vision: VisionSide, text: TextEncoder | None, data: ImageData) -> tuple[list, list]:
    """The images of this process's batches, unordered, and the numbers of the broken ones."""
    own, broken, hidden = [], [], None if run.processes.main else True
    with tqdm(total=data.num_batches(run.args.batch_size), disable=hidden, leave=False) as bar:
        for number, batch in run.processes.mine(data, run.args.batch_size):
            images = [(item, decoded(item)) for item in batch]
            broken += [item.index for item, image in images if image is None]
            good = [(item, image) for item, image in images if image is not None]
            if good:
                own += one_batch(run.cases, vision, text if data.captions else None, good)
            bar.update(number + 1 - bar.n)
    return own, broken


def one_batch(cases: list[Case], vision: VisionSide, text: TextEncoder | None, good: list) -> list[tuple]:
    """Every case's embeddings of one batch of (item, image)."""
    inputs = vision.inputs([image for _, image in good], cases)
    embeds = {case.name: vision.embed(case, inputs) for case in cases}
    captions: list = [None] * len(good)
    if text is not None:
        counts = [len(item.captions) for item, _ in good]
        if 0 in counts:
            raise UsageError(f"row {good[counts.index(0)][0].index} has no caption")
        captions = text([caption for item, _ in good for caption in item.captions]).split(counts)
    return [
        (
            item.index,
            item.label,
            # clones: another process would be sent the whole batch with a view
            {name: x[i].clone() for name, (x, _) in embeds.items()},
            {name: kept[i] for name, (_, kept) in embeds.items()},
            None if captions[i] is None else captions[i].clone(),
        )
        for i, (item, _) in enumerate(good)
    ]


def score(cases: list[Case], done: list[tuple], classes: torch.Tensor | None) -> dict[str, Quality]:
    """The metrics of every case; cosines are with the first, which is the unpruned model."""
    found, reference = {}, None
    _, labels, embeds, kept, captions = zip(*done, strict=True)
    for case in cases:
        images = torch.stack([each[case.name] for each in embeds])
        reference = images if reference is None else reference
        parts = [retrieval.cosine(images, reference)]
        if classes is not None:
            parts.append(retrieval.zero_shot(images, classes, list(labels)))
        if captions[0] is not None:
            owner = [i for i, own in enumerate(captions) for _ in own]
            parts.append(retrieval.retrieval(images, torch.cat(captions), owner))
        values = {name: value for part, _ in parts for name, value in part.items()}
        items = {name: scores for _, part in parts for name, scores in part.items()}
        found[case.name] = Quality(values, items, [each[case.name] for each in kept])
    return found
