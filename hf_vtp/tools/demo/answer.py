"""A model's answer about a picture, and the run that its cost is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..bench.cli import UsageError
from ..models import Loaded
from ..prompts import image_inputs, new_tokens, question_inputs
from ..towers import embedding

LONGEST_QUESTION = 500  # characters
NEW_TOKENS = 32


@dataclass(frozen=True)
class Task:
    """One picture with one question, ready for a model however it is pruned.

    Attributes:
        first: runs up to the first token, or makes the image's embedding; this is timed and counted.
        answer: returns the full answer in words.
    """

    first: Callable[[], object]
    answer: Callable[[], str]


def make_task(loaded: Loaded, picture: Image.Image, question: str) -> Task:
    """Raises UsageError for a question that is missing or too long."""
    if loaded.tokenizer is None:
        return _embedding(loaded, picture)
    question = question.strip()
    if not question:
        wanted = "a question" if loaded.answers else "captions to choose from, with commas between them"
        raise UsageError(f"there is nothing to answer; write {wanted}")
    if len(question) > LONGEST_QUESTION:
        raise UsageError(f"the question has {len(question)} characters; write at most {LONGEST_QUESTION}")
    make = _question if loaded.answers else _captions
    return make(loaded, picture, question)


def _embedding(loaded: Loaded, picture: Image.Image) -> Task:
    """Of a model without words: the class where it has some, else how like the unpruned embedding it is."""
    model, media = loaded.model, image_inputs(loaded.model, loaded.processor, [picture])

    def embed() -> Tensor:
        with torch.inference_mode():
            return embedding(model, media)

    names = getattr(model.config, "id2label", {}) if hasattr(model, "classifier") else {}
    unpruned: list[Tensor] = []  # the first that is asked for

    def answer() -> str:
        found = embed()[0].float()
        if len(names) == len(found):
            best = int(found.argmax())
            return f"{names[best]} ({100 * float(found.softmax(dim=-1)[best]):.0f} %)"
        unpruned.append(found)
        return f"cosine {float(cosine_similarity(found, unpruned[0], dim=-1)):.4f} with the unpruned"

    return Task(embed, answer)


def _question(loaded: Loaded, picture: Image.Image, question: str) -> Task:
    model, tokenizer = loaded.model, loaded.tokenizer
    inputs = question_inputs(model, loaded.processor, [picture], question)

    def generate(count: int) -> Tensor:
        kwargs = dict(max_new_tokens=count, do_sample=False)
        if model.generation_config.pad_token_id is None:
            kwargs["pad_token_id"] = tokenizer.pad_token_id or 0
        with torch.inference_mode():
            return new_tokens(model, model.generate(**inputs, **kwargs), inputs)

    def answer() -> str:
        words = tokenizer.decode(generate(NEW_TOKENS)[0], skip_special_tokens=True)
        return words.strip() or "(nothing)"

    return Task(lambda: generate(1), answer)


def _captions(loaded: Loaded, picture: Image.Image, question: str) -> Task:
    captions = [caption.strip() for caption in question.split(",") if caption.strip()]
    if not captions:
        raise UsageError("there is no caption to choose; write some with commas between them")
    model = loaded.model
    media = image_inputs(model, loaded.processor, [picture])
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    cut = {"truncation": most is not None, "max_length": most}
    text = loaded.tokenizer(captions, padding=True, return_tensors="pt", **cut)
    text = {name: text[name].to(model.device) for name in ("input_ids", "attention_mask") if name in text}

    def embed():
        with torch.inference_mode():
            return model.get_image_features(**media)

    def answer() -> str:
        with torch.inference_mode():
            shares = model(**media, **text).logits_per_image[0].float().softmax(dim=-1)
        best = int(shares.argmax())
        return f"{captions[best]} ({100 * float(shares[best]):.0f} %)"

    return Task(embed, answer)
