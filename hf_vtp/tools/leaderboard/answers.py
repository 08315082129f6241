"""A model that answers questions about images, as a subject of the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch

from ...apply import vtp, vtp_stats
from ..bench.cli import UsageError
from ..cases import refuse_impossible
from ..evaluation.answers import score
from ..evaluation.cases import DOWNSAMPLE, Case
from ..evaluation.equal_flops import FlopShares, solve
from ..evaluation.items import decoded
from ..evaluation.questions import Question, read_questions
from ..evaluation.vlm import Answerer
from ..models import load_config, load_model, refuse_unprunable
from ..processors import load_processor
from ..prompts import Prompts
from .contestants import config_of, seeds_of
from .entries import Entry, Point
from .outside import OUTSIDE
from .scores import digest
from .subjects import REFUSALS, NotRun, Run, Scores, refused

COUNTED = 4  # questions that FLOPs are counted on
AGREEMENT = "agreement"


@dataclass
class Batch:
    """Questions with their images."""

    questions: list[Question]
    images: list


class Answers:
    """Scores of greedy answers; `agreement` is 1 where an answer is the unpruned model's, else 0."""

    def __init__(self, entry: Entry, model: str, data: str, num_items: int, device: torch.device):
        self.entry, self.data = entry, data
        asked = [entry.question] if entry.question else []  # of captions, which have no question
        self.questions = read_questions(data, entry.split, num_items, *asked)
        config = load_config(model)
        refuse_unprunable(model, config, answers=True)
        loaded = load_model(model, config=config, dtype=torch.float32, device=device)
        processor = load_processor(model, config)
        prompts = Prompts(loaded, processor, entry.prompt or None, entry.instruction or None)
        self.answerer = Answerer(loaded, prompts, entry.max_new_tokens)
        self.num_items = len(self.questions)
        texts = [(q.id, q.text, q.answers) for q in self.questions]
        self.items_digest = digest([texts, entry.prompt, entry.instruction, entry.max_new_tokens])
        self.references: dict[int, list[str]] = {}
        self.counted = self._inputs(Case(), next(self.batches(COUNTED)))
        self.shares = FlopShares(self.model, [partial(self.answerer.generate, Case(), self.counted[0], 1)])
        self.default_layers = self._default_layers()

    @property
    def model(self):
        return self.answerer.model

    def _inputs(self, case: Case, batch: Batch) -> tuple[dict, list[int]]:
        return self.answerer.inputs(batch.images, [q.text for q in batch.questions], case)

    @torch.inference_mode()
    def _default_layers(self) -> list[int]:
        with vtp(self.model, keep_ratio=0.5) as model:
            self.answerer.generate(Case(), self.counted[0], 1)
            return [stage.layer for stage in vtp_stats(model).stages]

    @torch.inference_mode()
    def runs(self, row: str, point: Point, seeds: int) -> list[Run]:
        if row in OUTSIDE:
            raise NotRun("it runs classifiers of images alone")
        if row == DOWNSAMPLE:
            return [self._smaller(point)]
        try:
            config = config_of(row, point, self.default_layers)
            refuse_impossible(self.model, [config])
            if point.place == "flops":
                config = config.replace(keep_ratio=solve(config, point.value, self.shares).keep_ratio)
            share = self.shares(config)
        except REFUSALS as error:
            raise refused(error) from None
        how = f"keep_ratio {config.keep_ratio:g}"
        return [Run(config=each, share=share, how=how) for each in seeds_of(config, seeds)]

    def _smaller(self, point: Point) -> Run:
        case = Case(DOWNSAMPLE, point.value)
        if point.place == "flops" or not self.answerer.takes(case):
            raise NotRun("how images are made smaller for this model is not known")
        inputs, _ = self._inputs(case, next(self.batches(COUNTED)))
        share = self.shares.of_call(partial(self.answerer.generate, case, inputs, 1))
        return Run(smaller=point.value, share=share, how=f"tokens {point.value:g}")

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        questions = iter(self.questions)
        while own := list(islice(questions, size or self.entry.batch_size)):
            images = [decoded(question) for question in own]
            if None in images:
                raise UsageError(f"the image of {own[images.index(None)].id} of {self.data} is broken")
            yield Batch(own, images)

    @torch.inference_mode()
    def score(self, run: Run | None, batch: Batch, scores: Scores) -> None:
        number = batch.questions[0].index
        if number not in self.references:
            inputs, counts = self._inputs(Case(), batch)
            self.references[number] = self.answerer(Case(), inputs, counts)[0]
        try:
            texts, kept, counts = self._answer(run, batch)
        except REFUSALS as error:
            raise refused(error) from None
        items = {}
        if AGREEMENT in self.entry.metrics:
            same = zip(texts, self.references[number], strict=True)
            items[AGREEMENT] = [float(text == other) for text, other in same]
        scores.texts += texts
        scores.add(items, kept, counts)

    def finish(self, scores: Scores) -> None:
        """The metrics of all answers together: CIDEr weighs words by all references."""
        names = [name for name in self.entry.metrics if name != AGREEMENT]
        _, found = score(scores.texts, self.questions, names, None)
        items = scores.items | found
        scores.items = {name: list(map(float, items[name])) for name in self.entry.metrics}

    def _answer(self, run: Run | None, batch: Batch) -> tuple[list[str], list[int], list[int]]:
        case = Case()
        if run is not None:
            case = Case(config=run.config) if run.smaller is None else Case(DOWNSAMPLE, run.smaller)
        inputs, counts = self._inputs(case, batch)
        texts, kept = self.answerer(case, inputs, counts)
        return texts, kept, counts
