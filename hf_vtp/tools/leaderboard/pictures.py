"""A classifier of images, or a CLIP with the names of classes, as a subject of the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ...apply import vtp, vtp_stats
from ..bench.cli import UsageError
from ..cases import pruned_as, refuse_impossible
from ..classifiers import classify, label_names
from ..evaluation.cases import DOWNSAMPLE, Case
from ..evaluation.clip import VisionSide
from ..evaluation.equal_flops import FlopShares, solve, solve_ratio
from ..evaluation.items import ImageData, Item, decoded, open_images
from ..evaluation.labels import match_labels
from ..evaluation.texts import TextEncoder
from ..towers import load_embedder, processor_of
from .contestants import config_of, seeds_of
from .entries import Entry, Point
from .outside import OUTSIDE
from .scores import digest
from .subjects import REFUSALS, NotRun, Run, Scores, refused

COUNTED = 8  # images that FLOPs are counted on, of methods whose number of tokens follows the image
PROMPTS = ("a photo of a {}.",)


@dataclass
class Batch:
    """Items with their images, and what the unpruned model makes of them."""

    items: list[Item]
    images: list
    inputs: dict
    reference: tuple[Tensor, Tensor] | None = None


class Pictures:
    """Cosine and agreement with the unpruned model, and top-1 accuracy where items have labels."""

    def __init__(self, entry: Entry, model: str, data: str, num_items: int, device: torch.device):
        self.entry = entry
        tower = load_embedder(model, "pretrained", torch.float32, device)
        self.vision = VisionSide(tower, processor_of(model, "pretrained", tower.model.config))
        self.classes: Tensor | None = None
        if entry.kind == "clip":
            self.data = open_images(data, entry.split, num_items)
            self.labels = [item.label for item in self.data]
            names = self.data.classes
            self.classes = TextEncoder(model, device).classes(names, entry.prompts or list(PROMPTS))
        elif self.vision.classifies:
            known, names = label_names(tower.model.config), []
            self.data = open_images(data, entry.split, num_items, unnamed=known)
            self.labels = labels_of(self.data, known)
        else:
            raise UsageError(f"{model} is no classifier of images; call it of the kind clip or vlm")
        self.num_items = len(self.labels)
        self.items_digest = digest([self.labels, names, entry.prompts])
        self.references: dict[int, tuple[Tensor, Tensor]] = {}
        self.first = [image for item in islice(self.data, COUNTED) if (image := decoded(item)) is not None]
        counted = [self.vision.inputs([image], [Case()]) for image in self.first]
        self.shares = FlopShares(self.model, [partial(self.vision.forward, Case(), one) for one in counted])
        self.default_layers = self._default_layers(counted[0])

    @property
    def model(self):
        return self.vision.model

    @torch.inference_mode()
    def _default_layers(self, inputs: dict) -> list[int]:
        with vtp(self.model, keep_ratio=0.5) as model:
            self.vision.forward(Case(), inputs)
            return [stage.layer for stage in vtp_stats(model).stages]

    @torch.inference_mode()
    def runs(self, row: str, point: Point, seeds: int) -> list[Run]:
        if row in OUTSIDE:
            return [self._outside(row, point)]
        if row == DOWNSAMPLE:
            return [self._smaller(point)]
        try:
            config = config_of(row, point, self.default_layers)
            refuse_impossible(self.model, [config])
            solved = solve(config, point.value, self.shares)
        except REFUSALS as error:
            raise refused(error) from None
        config = config.replace(keep_ratio=solved.keep_ratio)
        how = f"keep_ratio {solved.keep_ratio:g}"
        return [Run(config=each, share=solved.share, how=how) for each in seeds_of(config, seeds)]

    def _outside(self, row: str, point: Point) -> Run:
        reason = OUTSIDE[row].refuses(self.model)
        if reason:
            raise NotRun(reason)
        pixels = self.vision.inputs(self.first[:1], [Case()])[None]["pixel_values"]
        forward, share, how = OUTSIDE[row].at(self.model, pixels, point.value)
        return Run(forward=forward, share=share, how=how)

    def _smaller(self, point: Point) -> Run:
        if not self.vision.takes(Case(DOWNSAMPLE, 0.5)):
            raise NotRun("how images are made smaller for this model is not known")

        def share(ratio: float) -> float:
            case = Case(DOWNSAMPLE, ratio)
            inputs = self.vision.inputs(self.first[:1], [case])
            return self.shares.of_call(partial(self.vision.forward, case, inputs))

        solved = solve_ratio(share, point.value)
        return Run(smaller=solved.keep_ratio, share=solved.share, how=f"tokens {solved.keep_ratio:g}")

    def batches(self) -> Iterator[Batch]:
        rows = iter(self.data)
        while items := list(islice(rows, self.entry.batch_size)):
            images = [decoded(item) for item in items]
            if None in images:
                broken = items[images.index(None)].index
                raise UsageError(f"image {broken} of {self.data.source} is broken; take it out")
            yield Batch(items, images, self.vision.inputs(images, [Case()]))

    @torch.inference_mode()
    def score(self, run: Run | None, batch: Batch, scores: Scores) -> None:
        number = batch.items[0].index
        if number not in self.references:
            self.references[number] = self._outputs(Case(), batch.inputs)
        reference, logits = self.references[number]
        try:
            (pooled, own), kept, total = self._run(run, batch)
        except REFUSALS as error:
            raise refused(error) from None
        items = {"cosine": cosine_similarity(pooled, reference, dim=-1).tolist()}
        chosen, labels = own.argmax(-1), [self.labels[item.index] for item in batch.items]
        items["agree"] = (chosen == logits.argmax(-1)).float().tolist()
        if None not in labels:
            items["top_1"] = (chosen == torch.tensor(labels)).float().tolist()
        scores.add({name: items[name] for name in self.entry.metrics if name in items}, kept, total)

    def finish(self, scores: Scores) -> None:
        """Nothing: an image's scores depend on no other image."""

    def _run(self, run: Run | None, batch: Batch) -> tuple[tuple[Tensor, Tensor], list[int], list[int]]:
        total = self.vision.num_tokens(batch.inputs[None])
        if run is None:
            return self._outputs(Case(), batch.inputs), total, total
        if run.forward is not None:
            pooled, logits = run.forward(batch.inputs[None]["pixel_values"])
            return (pooled.float().cpu(), logits.float().cpu()), [], total
        if run.smaller is not None:
            case = Case(DOWNSAMPLE, run.smaller)
            inputs = self.vision.inputs(batch.images, [case])
            return self._outputs(case, inputs), self.vision.num_tokens(inputs[run.smaller]), total
        with pruned_as(self.model, run.config) as model:
            outputs = self._outputs(Case(), batch.inputs)
            return outputs, list(vtp_stats(model).num_kept), total

    def _outputs(self, case: Case, inputs: dict) -> tuple[Tensor, Tensor]:
        """What the model pools [B, D], and its logits or cosines with the classes [B, C], on the CPU."""
        if self.classes is not None:
            pooled = self.vision.forward(case, inputs).float().cpu()
            return pooled, normalize(pooled, dim=-1) @ self.classes.T
        pooled, logits = self.vision.forward(case, inputs, partial(classify, self.model))
        return pooled.float().cpu(), logits.float().cpu()


def labels_of(data: ImageData, known: list[str]) -> list[int | None]:
    """The label of every item as a classifier that knows `known` numbers it, None where it has none."""
    if data.label is None or not data.named:
        return [item.label for item in data]
    places, _ = match_labels(data.classes, known, data.source)
    return [places[item.label] for item in data]
