"""A model's answer about a picture, and the run that its cost is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..bench.cli import UsageError
from ..models import Loaded
from ..prompts import image_inputs, question_inputs

LONGEST_QUESTION = 500  # characters
NEW_TOKENS = 32


@dataclass(frozen=True)
class Task:
    """One picture with one question, ready for a model however it is pruned.

    Attributes:
        first: runs up to the first token, or of CLIP the image's embedding; this is timed and counted.
        answer: the whole answer in words.
    """

    first: Callable[[], object]
    answer: Callable[[], str]


def make_task(loaded: Loaded, picture: Image.Image, question: str) -> Task:
    """Raises UsageError for a question that is missing or too long."""
    question = question.strip()
    if not question:
        wanted = "a question" if loaded.answers else "captions to choose from, with commas between them"
        raise UsageError(f"there is nothing to answer; write {wanted}")
    if len(question) > LONGEST_QUESTION:
        raise UsageError(f"the question has {len(question)} characters; write at most {LONGEST_QUESTION}")
    make = _question if loaded.answers else _captions
    return make(loaded, picture, question)


def _question(loaded: Loaded, picture: Image.Image, question: str) -> Task:
    model, tokenizer = loaded.model, loaded.tokenizer
    inputs = question_inputs(model, loaded.processor, [picture], question)
    width = inputs["input_ids"].shape[1]

    def generate(count: int) -> Tensor:
        kwargs = dict(max_new_tokens=count, do_sample=False)
        if model.generation_config.pad_token_id is None:
            kwargs["pad_token_id"] = tokenizer.pad_token_id or 0
        with torch.inference_mode():
            return model.generate(**inputs, **kwargs)

    def answer() -> str:
        words = tokenizer.decode(generate(NEW_TOKENS)[0, width:], skip_special_tokens=True)
        return words.strip() or "(nothing)"

    return Task(lambda: generate(1), answer)


def _captions(loaded: Loaded, picture: Image.Image, question: str) -> Task:
    captions = [caption.strip() for caption in question.split(",") if caption.strip()]
    if not captions:
        raise UsageError("there is no caption to choose; write some with commas between them")
    model = loaded.model
    media = image_inputs(model, loaded.processor, [picture])
    most = model.config.text_config.max_position_embeddings
    text = loaded.tokenizer(captions, padding=True, truncation=True, max_length=most, return_tensors="pt")
    text = {name: text[name].to(model.device) for name in ("input_ids", "attention_mask")}

    def embed():
        with torch.inference_mode():
            return model.get_image_features(**media)

    def answer() -> str:
        with torch.inference_mode():
            shares = model(**media, **text).logits_per_image[0].float().softmax(dim=-1)
        best = int(shares.argmax())
        return f"{captions[best]} ({100 * float(shares[best]):.0f} %)"

    return Task(embed, answer)
