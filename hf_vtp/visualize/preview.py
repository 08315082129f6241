"""One forward of a model over a picture, so that there is something to draw."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from PIL import Image

from ..methods import list_methods
from ..names import parameters
from ..wrappers import unwrap

ANYTHING = "?"  # asked where it does not matter what
# what makes inputs is imported where it is used: drawing alone needs none of the tools


def preview(model, processor, image: Image.Image, text: str | None = None) -> None:
    """Run a model once over a picture, with a question where there is one and the model writes answers.

    `processor` is the model's; its image processor is enough where a model encodes pictures without a prompt.
    Raises ValueError for a picture without pixels.
    """
    from ..tools.prompts import image_inputs, question_inputs

    with torch.inference_mode():
        if answers(model) and (text is not None or hasattr(processor, "tokenizer")):
            model(**question_inputs(model, processor, [image], text or ANYTHING))
            return
        run = getattr(model, "get_image_features", model)
        taken = set(parameters(run))
        if "kwargs" in taken:
            taken |= set(parameters(type(unwrap(model)).forward))
        inputs = image_inputs(model, processor, [image])
        run(**{name: x for name, x in inputs.items() if name in taken})


def answers(model) -> bool:
    """Whether a model writes text."""
    return hasattr(model, "generate")


def reading_text(methods: Iterable[str]) -> list[str]:
    """Those of the methods, known or not, that compare image tokens with the prompt's text."""
    known = list_methods()
    return [name for name in methods if name in known and "text" in known[name]["needs"]]
