"""One builder of a model's inputs, from its processor, pictures and texts, for every family."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import ProcessorMixin

from ..families.placeholder import media_of
from ..wrappers import unwrap
from .bench.cli import UsageError, first_sentence
from .bench.decode import refuse_empty

PLACEHOLDER = "<image>"  # of a processor that names none


def on_device(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs where the model is, numbers with a fraction in its dtype."""
    return {
        name: x.to(model.device, model.dtype if x.is_floating_point() else None) for name, x in inputs.items()
    }


def image_inputs(model: nn.Module, processor, images: Sequence[Image.Image]) -> dict[str, Tensor]:
    """Pixel values of pictures, where the model is; `processor` is an image processor or has one.

    Raises ValueError for a picture without pixels.
    """
    for image in images:
        refuse_empty(image)
    make = getattr(processor, "image_processor", processor)
    return on_device(model, make(images=list(images), return_tensors="pt"))


def text_inputs(
    processor: ProcessorMixin, images: Sequence[Image.Image], texts: Sequence[str], **kwargs
) -> dict[str, Tensor]:
    """Inputs for prompts with one picture each, padded on the left, on the CPU.

    `kwargs` are further ones of the processor, such as the size of images.
    """
    bos = processor.tokenizer.bos_token
    if bos and texts[0].startswith(bos):
        kwargs["add_special_tokens"] = False  # or it would begin twice
    made = processor(
        images=list(images),
        text=list(texts),
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **kwargs,
    )
    return {name: x for name, x in made.items() if isinstance(x, Tensor)}


def placeholder(processor: ProcessorMixin) -> str:
    """The placeholder of a picture in a text: of the processor's tokens the one that its template writes."""
    marks = [getattr(processor, name, None) for name in ("image_token", "boi_token")]
    marks = [mark for mark in (*marks, PLACEHOLDER) if mark]
    if len(marks) > 2 and chat_template(processor):
        try:
            text = chat_text(processor, "?")
        except Exception:  # whatever a template that takes no pictures may raise
            return marks[0]
        return next((mark for mark in marks if mark in text), marks[0])
    return marks[0]


def chat_template(processor: ProcessorMixin) -> str | None:
    """The processor's chat template or else its tokenizer's; None where neither has one."""
    found = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    return found.get("default") if isinstance(found, dict) else found


def chat_text(processor: ProcessorMixin, question: str) -> str:
    """The prompt for a question about a picture, in the processor's chat template."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    turns, template = [{"role": "user", "content": content}], chat_template(processor)
    return processor.tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=False, add_generation_prompt=True
    )


def plain_template(model: nn.Module, processor: ProcessorMixin) -> str:
    """A template for a model without a chat template: the picture, between its marks, then the question."""
    config, tokenizer = unwrap(model).config, processor.tokenizer
    ids = [getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end")]
    first, last = ("" if i is None else tokenizer.convert_ids_to_tokens(i) for i in ids)
    return f"{first} {{image}} {last} {{question}}".strip()


def new_tokens(model: nn.Module, output: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """What `generate` wrote beyond the prompt, [B, n]."""
    before = 1 if unwrap(model).config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return output[:, before:]


def question_inputs(
    model: nn.Module, processor: ProcessorMixin, images: Sequence[Image.Image], question: str
) -> dict[str, Tensor]:
    """Inputs of `generate` for one question about every picture, by the chat template where there is one."""
    template = None if chat_template(processor) else plain_template(model, processor)
    return Prompts(model, processor, template)(images, [question] * len(images))[0]


class Prompts:
    """Makes a model's inputs from pictures and questions: one picture a prompt, padded on the left.

    `template` has {image} and {question}; without one it is the processor's chat template. `instruction` is a
    line after every question. Raises UsageError where there is no template, or no single place for a picture.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: ProcessorMixin,
        template: str | None = None,
        instruction: str | None = None,
    ):
        self.model, self.processor = model, processor
        self.template, self.instruction = template or None, instruction
        self.tokenizer = processor.tokenizer
        root = unwrap(model)
        self.image_token_id = getattr(root.config, media_of(root)["pixel_values"][0])
        self.placeholder = placeholder(processor)
        self.names = set(inspect.signature(type(root).forward).parameters)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        if self.template is None and chat_template(processor) is None:
            raise UsageError(
                f"{root.name_or_path} has no chat template; give --prompt with {{image}} and {{question}}"
            )
        places = self.text("?").count(self.placeholder)
        if places != 1:
            raise UsageError(
                f"the prompt of {root.name_or_path} has {places} places for an image, not one; give --prompt "
                "with {image} and {question} as the model was trained with"
            )

    def text(self, question: str) -> str:
        """A prompt with one placeholder for the picture."""
        question = question if self.instruction is None else f"{question}\n{self.instruction}"
        if self.template is not None:
            filled = self.template.replace("{image}", self.placeholder)
            return filled.replace("{question}", question)
        try:
            return chat_text(self.processor, question)
        except Exception as error:  # whatever a template that takes no pictures may raise
            raise UsageError(
                f"the chat template cannot be used ({first_sentence(error)}); give --prompt"
            ) from None

    def __call__(
        self, images: Sequence[Image.Image], questions: Sequence[str], **kwargs
    ) -> tuple[dict[str, Tensor], list[int]]:
        """Inputs of `generate` for a batch, where the model is, and the number of image tokens of each row.

        Raises ValueError for a picture without pixels, UsageError for a question that names the placeholder.
        """
        for image in images:
            refuse_empty(image)
        texts = [self.text(question) for question in questions]
        if any(text.count(self.placeholder) != 1 for text in texts):
            raise UsageError("the question must not name the image's placeholder; ask it in plain words")
        made = text_inputs(self.processor, images, texts, **kwargs)
        # not all that a tokenizer makes: generate refuses what the model does not take
        inputs = on_device(self.model, {name: x for name, x in made.items() if name in self.names})
        return inputs, (inputs["input_ids"] == self.image_token_id).sum(dim=1, dtype=torch.long).tolist()
