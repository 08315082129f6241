"""The caller's pictures, or a model's inputs, as batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

# the tools that make inputs are imported where they are used: `import hf_vtp.tuning` imports none

QUESTION = "What is shown in this picture? Answer in one word."
ALLOWED = (
    "images must be a list of PIL images (with processor=), a list of dicts with a model's inputs, or of a "
    "model without text a tensor of pixel values [n, 3, height, width]"
)


@dataclass(frozen=True)
class Item:
    """One picture, with a question where the model reads text, or ready inputs."""

    image: Image.Image | None = None
    question: str | None = None
    inputs: dict[str, Tensor] | None = None


def make_items(images: object, questions: str | Sequence[str] | None, reads_text: bool) -> list[Item]:
    """One item for each picture or dict, for each image of a model without text; see ALLOWED."""
    from ..tools.bench.decode import as_rgb

    if isinstance(images, Mapping):
        images = [images]
    if isinstance(images, Tensor):
        images = [{"pixel_values": images}]
    if isinstance(images, str | bytes | Image.Image):
        raise TypeError(f"{ALLOWED}, not {type(images).__name__}")
    images = list(images)
    if all(isinstance(one, Image.Image) for one in images):
        asked = _questions(questions, len(images), reads_text)
        return [Item(as_rgb(image), question) for image, question in zip(images, asked, strict=True)]
    if questions is not None:
        raise ValueError("questions are for PIL images; dicts hold their prompts already")
    if not all(isinstance(one, Mapping) for one in images):
        kinds = sorted({type(one).__name__ for one in images})
        raise TypeError(f"{ALLOWED}, not a list of {', '.join(kinds)}")
    needed = ("pixel_values", "input_ids") if reads_text else ("pixel_values",)
    for one in images:
        lacks = [name for name in needed if not isinstance(one.get(name), Tensor)]
        if lacks:
            raise ValueError(f"a dict of inputs has no tensor {lacks[0]!r}; give what the processor returned")
    tensors = [{name: x for name, x in one.items() if isinstance(x, Tensor)} for one in images]
    if reads_text:
        return [Item(inputs=one) for one in tensors]
    return [
        Item(inputs={name: x[i : i + 1] for name, x in one.items()})
        for one in tensors
        for i in range(len(one["pixel_values"]))
    ]


def _questions(questions: str | Sequence[str] | None, num: int, reads_text: bool) -> list[str | None]:
    if not reads_text:
        if questions is not None:
            raise ValueError("questions are for models that read text; leave them out")
        return [None] * num
    questions = QUESTION if questions is None else questions
    asked = [questions] * num if isinstance(questions, str) else list(questions)
    if len(asked) != num or not all(isinstance(one, str) for one in asked):
        raise ValueError(f"questions must be one text, or one for each of the {num} images")
    return asked


def batches(items: list[Item], processor: Callable | None, size: int, reads_text: bool) -> list[dict]:
    """The items in their order, `size` a batch; every dict of a language model's inputs is one batch.

    Raises ValueError for pictures without a processor, or with one that makes no inputs of them.
    """
    if items[0].inputs is not None and reads_text:
        return [item.inputs for item in items]
    parts = [items[i : i + size] for i in range(0, len(items), size)]
    if items[0].inputs is not None:
        names = items[0].inputs
        return [{name: torch.cat([item.inputs[name] for item in part]) for name in names} for part in parts]
    if not callable(processor):
        raise ValueError("PIL images need the model's processor; give it as processor=")
    make = _prompts if reads_text else _pixels
    return [make(processor, part) for part in parts]


def num_rows(batch: dict) -> int:
    """The number of images, or of prompts in a language model's inputs."""
    return len(batch["input_ids"] if "input_ids" in batch else batch["pixel_values"])


def _pixels(processor: Callable, part: list[Item]) -> dict[str, Tensor]:
    made = processor(images=[item.image for item in part], return_tensors="pt")
    return {name: x for name, x in made.items() if isinstance(x, Tensor)}


def _prompts(processor: Callable, part: list[Item]) -> dict[str, Tensor]:
    if not hasattr(processor, "tokenizer"):
        raise ValueError(
            "a model that reads text needs its whole processor, as AutoProcessor loads it; or give dicts of "
            "inputs"
        )
    from ..tools.prompts import text_inputs

    texts = [prompt(processor, item.question) for item in part]
    return text_inputs(processor, [item.image for item in part], texts)


def prompt(processor, question: str) -> str:
    """The question in the processor's chat template; unchanged if it holds the image's placeholder."""
    from ..tools.prompts import chat_template, chat_text, placeholder

    token = placeholder(processor)
    if token in question:
        return question
    if not chat_template(processor):
        raise ValueError(
            f"this processor has no chat template; give questions as whole prompts, with {token} where the "
            "image goes"
        )
    return chat_text(processor, question)
