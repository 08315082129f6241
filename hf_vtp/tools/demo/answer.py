"""What a model says of a picture, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ...visualize.preview import Eyes, pixels, prompt
from ..bench.cli import UsageError

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


def make_task(eyes: Eyes, picture: Image.Image, question: str) -> Task:
    """Raises UsageError for a question that is missing or too long."""
    question = question.strip()
    if not question:
        wanted = "a question" if eyes.answers else "captions to choose from, with commas between them"
        raise UsageError(f"there is nothing to answer; write {wanted}")
    if len(question) > LONGEST_QUESTION:
        raise UsageError(f"the question has {len(question)} characters; write at most {LONGEST_QUESTION}")
    return _question(eyes, picture, question) if eyes.answers else _captions(eyes, picture, question)


def _question(eyes: Eyes, picture: Image.Image, question: str) -> Task:
    inputs = prompt(eyes, picture, question)
    width = inputs["input_ids"].shape[1]

    def generate(count: int) -> Tensor:
        told = dict(max_new_tokens=count, do_sample=False)
        if eyes.model.generation_config.pad_token_id is None:
            told["pad_token_id"] = eyes.tokenizer.pad_token_id or 0
        with torch.inference_mode():
            return eyes.model.generate(**inputs, **told)

    def answer() -> str:
        words = eyes.tokenizer.decode(generate(NEW_TOKENS)[0, width:], skip_special_tokens=True)
        return words.strip() or "(nothing)"

    return Task(lambda: generate(1), answer)


def _captions(eyes: Eyes, picture: Image.Image, question: str) -> Task:
    captions = [caption.strip() for caption in question.split(",") if caption.strip()]
    if not captions:
        raise UsageError("there is no caption to choose; write some with commas between them")
    media, model = pixels(eyes, [picture]), eyes.model
    most = model.config.text_config.max_position_embeddings
    text = eyes.tokenizer(captions, padding=True, truncation=True, max_length=most, return_tensors="pt")
    text = {name: text[name].to(model.device) for name in ("input_ids", "attention_mask")}

    def look():
        with torch.inference_mode():
            return model.get_image_features(**media)

    def answer() -> str:
        with torch.inference_mode():
            shares = model(**media, **text).logits_per_image[0].float().softmax(dim=-1)
        best = int(shares.argmax())
        return f"{captions[best]} ({100 * float(shares[best]):.0f} %)"

    return Task(look, answer)
