"""Every image through every case, in one pass over the data, and the metrics of what comes out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import fmean

import torch
from sklearn.metrics.pairwise import paired_cosine_distances
from torch import Tensor
from tqdm import tqdm

from ..bench.cli import UsageError
from . import retrieval
from .cases import Case
from .clip import Inputs, VisionSide
from .items import ImageData, decoded
from .rows import Quality
from .script import Run
from .texts import TextEncoder

MOST_RANKED = max(retrieval.RANKS)  # labels kept of an image


@dataclass(frozen=True)
class Seen:
    """What an evaluation keeps of one image; dicts are by the case's name."""

    index: int
    label: int | None
    kept: dict[str, int]
    embeds: dict[str, Tensor] = field(default_factory=dict)  # [D], where texts are compared with them
    cosines: dict[str, float] = field(default_factory=dict)  # of a classifier, with the unpruned embedding
    ranked: dict[str, list[int]] = field(default_factory=dict)  # of a classifier, its first labels
    captions: Tensor | None = None  # [n, D]


def embed_all(
    run: Run, vision: VisionSide, text: TextEncoder | None, data: ImageData
) -> tuple[list[Seen], list[int]]:
    """What is kept of every image, in order.

    The data is read once: each batch runs through every case. Broken images are skipped; their numbers are
    the second result.
    """
    own, broken = run.processes.agree(lambda: embed_own(run, vision, text, data))
    done = run.processes.gather(own, key=lambda one: one.index)
    broken = run.processes.gather(broken, key=int)
    if not done:
        raise UsageError(f"every image of {data.source} is broken")
    if run.processes.main:
        for index in broken:
            print(f"skipped row {index}: the image is broken", file=sys.stderr)
    return done, broken


def embed_own(
    run: Run, vision: VisionSide, text: TextEncoder | None, data: ImageData
) -> tuple[list[Seen], list]:
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


def one_batch(cases: list[Case], vision: VisionSide, text: TextEncoder | None, good: list) -> list[Seen]:
    """What every case makes of one batch of (item, image), which is preprocessed once."""
    inputs = vision.inputs([image for _, image in good], cases)
    if vision.classifies:
        return _classified(cases, vision, inputs, good)
    embeds = {case.name: vision.embed(case, inputs) for case in cases}
    captions: list = [None] * len(good)
    if text is not None:
        counts = [len(item.captions) for item, _ in good]
        if 0 in counts:
            raise UsageError(f"row {good[counts.index(0)][0].index} has no caption")
        captions = text([caption for item, _ in good for caption in item.captions]).split(counts)
    return [
        Seen(
            item.index,
            item.label,
            {name: kept[i] for name, (_, kept) in embeds.items()},
            # clones: another process would be sent the whole batch with a view
            embeds={name: x[i].clone() for name, (x, _) in embeds.items()},
            captions=None if captions[i] is None else captions[i].clone(),
        )
        for i, (item, _) in enumerate(good)
    ]


def _classified(cases: list[Case], vision: VisionSide, inputs: Inputs, good: list) -> list[Seen]:
    """Of a classifier scalars are kept, not embeddings: a data set has many images, and a table many rows."""
    kept, cosines, ranked, reference = {}, {}, {}, None
    for case in cases:
        pooled, logits, kept[case.name] = vision.classify(case, inputs)
        reference = pooled if reference is None else reference
        cosines[case.name] = (1 - paired_cosine_distances(pooled.double(), reference.double())).tolist()
        ranked[case.name] = logits.topk(min(MOST_RANKED, logits.shape[-1])).indices.tolist()
    return [
        Seen(
            item.index,
            item.label,
            {name: x[i] for name, x in kept.items()},
            cosines={name: x[i] for name, x in cosines.items()},
            ranked={name: x[i] for name, x in ranked.items()},
        )
        for i, (item, _) in enumerate(good)
    ]


def score(cases: list[Case], done: list[Seen], classes: Tensor | None) -> dict[str, Quality]:
    """The metrics of every case; cosines are with the first, which is the unpruned model."""
    found, reference = {}, None
    labels = [one.label for one in done]
    for case in cases:
        images = torch.stack([one.embeds[case.name] for one in done])
        reference = images if reference is None else reference
        parts = [retrieval.cosine(images, reference)]
        if classes is not None:
            parts.append(retrieval.zero_shot(images, classes, labels))
        if done[0].captions is not None:
            owner = [i for i, one in enumerate(done) for _ in one.captions]
            captions = torch.cat([one.captions for one in done])
            parts.append(retrieval.retrieval(images, captions, owner))
        found[case.name] = quality(case, done, parts)
    return found


def score_classifier(
    cases: list[Case], done: list[Seen], labels: list[int] | None, num_labels: int
) -> dict[str, Quality]:
    """The same of a classifier; agreement is with the first label of the first case, the unpruned model.

    `labels` are the right ones, None where they are not known.
    """
    found, unpruned = {}, [one.ranked[cases[0].name][0] for one in done]
    for case in cases:
        ranked = [one.ranked[case.name] for one in done]
        agree = [float(best == first) for (best, *_), first in zip(ranked, unpruned, strict=True)]
        parts = [retrieval.cosines([one.cosines[case.name] for one in done])]
        parts.append(({"agreement": fmean(agree)}, {"agreement": agree}))
        if labels is not None:
            parts.append(retrieval.top_k(ranked, labels, num_labels))
        found[case.name] = quality(case, done, parts)
    return found


def quality(case: Case, done: list[Seen], parts: list[tuple[dict, dict]]) -> Quality:
    """The numbers and the items' scores of several metrics as one."""
    values = {name: value for part, _ in parts for name, value in part.items()}
    items = {name: scores for _, part in parts for name, scores in part.items()}
    return Quality(values, items, [one.kept[case.name] for one in done])
