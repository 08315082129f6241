"""Answers of every case to every question, and the metrics of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ... import metrics
from ..bench.cli import UsageError
from .questions import Question
from .retrieval import split_items
from .rows import Quality

METRICS = ("exact_match", "vqa_accuracy", "anls", "pope", "caption_cosine", "cider")
ASKED_FOR = "cider"  # of captions: an answer of one word scores nothing that means anything
AGREEMENT = "agreement"  # of every evaluation: how often the answer is the unpruned model's


def chosen(asked: Sequence[str] | None, questions: Sequence[Question], has_encoder: bool) -> list[str]:
    """The names of the metrics to compute: those asked for, or all that these answers allow but CIDEr.

    Raises UsageError for POPE where an answer is neither yes nor no.
    """
    yes_or_no = all(q.answers[0].strip().lower() in ("yes", "no") for q in questions)
    if asked and "pope" in asked and not yes_or_no:
        raise UsageError("pope needs answers that are all yes or no; leave it out of --metric")
    fits = {"pope": yes_or_no, "caption_cosine": has_encoder, ASKED_FOR: False}
    return list(asked or [name for name in METRICS if fits.get(name, True)])


def score(
    predictions: list[str], questions: Sequence[Question], names: Sequence[str], encode: Callable | None
) -> tuple[dict, dict]:
    """The metrics' numbers, and every question's scores by the number's name; None without an encoder."""
    values, items = {}, {}
    for name in names:
        if name == "caption_cosine":
            found = _caption_cosine(predictions, questions, encode) if encode else ({name: None}, {})
        else:
            references = [q.answers[0] if name == "pope" else list(q.answers) for q in questions]
            computed = metrics.load(name).compute(predictions=predictions, references=references, items=True)
            found = split_items(computed)
        values, items = values | found[0], items | found[1]
    return values, items


def qualities(
    cases: Sequence, done: dict, questions: Sequence[Question], names: Sequence[str], encode: Callable | None
) -> dict[str, Quality]:
    """The quality of every case by its name, from the lines of the predictions file; the first is unpruned.

    AGREEMENT comes beside what `names` says, where that is anything.
    """
    found, unpruned = {}, None
    for case in cases:
        rows = [done[case.name, question.id] for question in questions]
        texts = [row["prediction"] for row in rows]
        unpruned = unpruned or texts
        values, items = score(texts, questions, names, encode)
        if names:
            items[AGREEMENT] = [float(a == b) for a, b in zip(texts, unpruned, strict=True)]
            values[AGREEMENT] = float(np.mean(items[AGREEMENT]))
        found[case.name] = Quality(values, items, [row["kept_tokens"] for row in rows])
    return found


def _caption_cosine(
    predictions: list[str], questions: Sequence[Question], encode: Callable
) -> tuple[dict, dict]:
    """Cosine of the answer's embedding with those of the right answers; a question's score is their mean."""
    owner = [i for i, question in enumerate(questions) for _ in question.answers]
    references = encode([answer for question in questions for answer in question.answers])
    embeds = {"predictions": encode(predictions)[owner].numpy(), "references": references.numpy()}
    pairs = metrics.load("embedding_cosine").compute(**embeds, items=True)["cosine_items"]
    scores = np.bincount(owner, weights=pairs) / np.bincount(owner)
    return {"caption_cosine": float(scores.mean())}, {"caption_cosine": scores.tolist()}
