"""A model with what makes its inputs, loaded part by part: whole processors may want torchvision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BaseImageProcessor,
    CLIPModel,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from ..methods.table import list_methods
from ..tools.bench.cli import UsageError
from ..tools.bench.decode import refuse_empty
from ..tools.cards.hub import load
from ..tools.image_processors import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor

MODELS = {
    "clip": CLIPModel,
    "llava": LlavaForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen2_vl": Qwen2VLForConditionalGeneration,
}
INSTEAD = "give a local folder that holds a model of one of the families hf_vtp prunes"


@dataclass(frozen=True)
class Eyes:
    """A model and what makes its inputs; `tokenizer` is None where no text is asked for."""

    model: PreTrainedModel
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def answers(self) -> bool:
        """Whether the model writes text."""
        return hasattr(self.model, "lm_head")


def load_eyes(name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Eyes:
    """A model of any family that can be pruned from a folder, the local cache or the Hub, in eval mode.

    Nothing that a repository holds is executed. Raises UsageError for what cannot be had.
    """
    config = load(name, partial(_from, AutoConfig), INSTEAD)
    if config.model_type not in MODELS:
        raise UsageError(
            f"{name} is of model_type {config.model_type!r}; choose a model of one of {', '.join(MODELS)}"
        )
    model = load(name, partial(_from, MODELS[config.model_type], dtype=dtype), INSTEAD)
    processor = load(name, _image_processor, INSTEAD)
    return Eyes(model.to(device).eval(), processor, load(name, partial(_from, AutoTokenizer), INSTEAD))


def see(eyes: Eyes, image: Image.Image, text: str | None = None) -> None:
    """One forward of the model over a picture, with text only where methods read it."""
    with torch.inference_mode():
        if text is not None and eyes.answers:
            eyes.model(**prompt(eyes, image, text))
        else:
            look = getattr(eyes.model, "get_image_features", eyes.model)
            look(**pixels(eyes, [image]))


def reading_text(methods: Iterable[str]) -> list[str]:
    """Those of the methods, known or not, that compare image tokens with the prompt's text."""
    known = list_methods()
    return [name for name in methods if name in known and "text" in known[name]["needs"]]


def pixels(eyes: Eyes, images: list[Image.Image]) -> dict[str, Tensor]:
    """What the image processor makes of the pictures, on the model's device and in its dtype.

    Raises ValueError for a picture without pixels.
    """
    for image in images:
        refuse_empty(image)
    media = eyes.image_processor(images=images, return_tensors="pt")
    model = eyes.model
    return {
        name: x.to(model.device, model.dtype if x.is_floating_point() else None) for name, x in media.items()
    }


def prompt(eyes: Eyes, image: Image.Image, question: str) -> dict[str, Tensor]:
    """Inputs of `generate` for a question about a picture, by the chat template where there is one."""
    media, config, tokenizer = pixels(eyes, [image]), eyes.model.config, eyes.tokenizer
    placeholder = tokenizer.convert_ids_to_tokens(config.image_token_id)
    if tokenizer.chat_template:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    else:
        names = ("vision_start_token_id", "vision_end_token_id")
        ends = [
            tokenizer.convert_ids_to_tokens(getattr(config, n)) if hasattr(config, n) else "" for n in names
        ]
        text = f"{ends[0]} {placeholder} {ends[1]} {question}".strip()
    ids = tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"]
    places = [i for i, token in enumerate(ids) if token == config.image_token_id]
    if len(places) != 1:
        raise UsageError("the question must not name the image's placeholder; ask it in plain words")
    count = _num_placeholders(config, media)
    ids = torch.tensor([ids[: places[0]] + [config.image_token_id] * count + ids[places[0] + 1 :]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **media}
    if "image_grid_thw" in media:
        inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
    return {name: x.to(eyes.model.device) for name, x in inputs.items()}


def _num_placeholders(config, media: dict[str, Tensor]) -> int:
    if "image_grid_thw" in media:
        return int(media["image_grid_thw"].prod()) // config.vision_config.spatial_merge_size**2
    return config.image_seq_length


def _from(kind, name: str, **told):
    if issubclass(kind, PreTrainedModel):
        told["use_safetensors"] = True  # the other format is a pickle
    return kind.from_pretrained(name, trust_remote_code=False, **told)


def _image_processor(name: str, local_files_only: bool) -> BaseImageProcessor:
    # not the Auto class: the one of Transformers 5.12 wants torchvision
    told, _ = BaseImageProcessor.get_image_processor_dict(name, local_files_only=local_files_only)
    kind = str(told.get("image_processor_type", "CLIPImageProcessor"))
    if kind.startswith("Qwen2VL"):
        processor = Qwen2VLImageProcessor
    elif kind.startswith("Llava"):
        processor = LlavaImageProcessor
    elif kind.startswith("CLIP"):
        processor = CLIPImageProcessor
    else:
        raise UsageError(f"{name} has an image processor of type {kind}, which is not known here; {INSTEAD}")
    return processor.from_pretrained(
        Path(name) if Path(name).is_dir() else name, local_files_only=local_files_only
    )
