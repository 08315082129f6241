"""Images and questions to what a vision-language model takes: one image a prompt, padded on the left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import transformers
from PIL import Image
from transformers import AutoTokenizer
from transformers.utils import cached_file

from ..bench.cli import UsageError, first_sentence
from ..cards.hub import load, without_code
from .downsample import nearest_grid, smaller

INSTEAD = "give a folder or a name with the weights, a tokenizer and an image processor"


class Prompter:
    """Makes a model's inputs from images and questions.

    `template` has {image} and {question}; without one the checkpoint's chat template is used. Raises
    UsageError where there is neither, or where the checkpoint lacks its tokenizer or image processor.
    """

    def __init__(self, name: str, config, template: str | None, instruction: str | None):
        self.config, self.template, self.instruction = config, template, instruction
        self.tokenizer = load(name, without_code(AutoTokenizer), INSTEAD)
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.image_token = self.tokenizer.convert_ids_to_tokens(config.image_token_id)
        self.family = FAMILIES.get(config.model_type)
        if self.family is None:
            known = ", ".join(FAMILIES)
            raise UsageError(
                f"no prompts are known for model_type {config.model_type!r}; choose from {known}"
            )
        try:
            # only now: without torchvision the import itself warns
            self.processor = load(name, without_code(getattr(transformers, self.family.processor)), INSTEAD)
        except ImportError as error:
            raise UsageError(f"the image processor of {name}: {first_sentence(error)}") from None
        self.chat = None if template else _chat_template(name, self.tokenizer)
        places = self.text("?").count(self.image_token) if self.image_token else 0
        if places != 1:
            raise UsageError(
                f"the prompt of {name} has {places} places for an image, not one; give --prompt with "
                "{image} and {question} as the model was trained with"
            )

    def text(self, question: str) -> str:
        """A prompt with one placeholder for the image."""
        asked = question if self.instruction is None else f"{question}\n{self.instruction}"
        if self.template is not None:
            return self.template.replace("{image}", self.image_token or "").replace("{question}", asked)
        content = [{"type": "image"}, {"type": "text", "text": asked}]
        told = {"chat_template": self.chat, "tokenize": False, "add_generation_prompt": True}
        try:
            return self.tokenizer.apply_chat_template([{"role": "user", "content": content}], **told)
        except Exception as error:  # whatever a template that takes no images may raise
            raise UsageError(
                f"the chat template cannot be used ({first_sentence(error)}); give --prompt"
            ) from None

    def __call__(
        self, images: Sequence[Image.Image], questions: Sequence[str], keep_ratio: float | None = None
    ) -> tuple[dict, list[int]]:
        """A batch's inputs on the CPU, and the image tokens of each row; with a ratio, of smaller images."""
        media, counts = self.family.pixels(self.processor, self.config, images, keep_ratio)
        texts = [
            self.text(question).replace(self.image_token, self.image_token * count)
            for question, count in zip(questions, counts, strict=True)
        ]
        bos = self.tokenizer.bos_token  # as Transformers' processors do: once, whoever writes it
        special = not (bos and texts[0].startswith(bos))
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=special)
        inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"], **media}
        return inputs | self.family.columns(self.config, inputs["input_ids"]), counts


class Llava:
    """Square images; placeholders by the tower's patches."""

    processor = "CLIPImageProcessor"  # of all towers that can be pruned; 5.12's Auto class lacks it

    @staticmethod
    def pixels(
        processor, config, images: Sequence[Image.Image], keep_ratio: float | None
    ) -> tuple[dict, list]:
        patch, told = config.vision_config.patch_size, {}
        if keep_ratio is not None:
            side = config.vision_config.image_size // patch
            told = smaller(processor, nearest_grid(side, side, keep_ratio)[0] * patch)
        values = processor(images=list(images), return_tensors="pt", **told)["pixel_values"]
        prefix = int(config.vision_feature_select_strategy == "full")
        count = (values.shape[-2] // patch) * (values.shape[-1] // patch) + prefix
        return {"pixel_values": values}, [count] * len(values)

    @staticmethod
    def columns(config, ids) -> dict:
        return {}

    @staticmethod
    @contextmanager
    def any_size(model) -> Iterator[None]:
        """Let the tower take images of another size, its position embeddings stretched."""

        def stretch(module, args, kwargs):
            return args, {**kwargs, "interpolate_pos_encoding": True}

        handle = model.model.vision_tower.register_forward_pre_hook(stretch, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


class Qwen:
    """Images of any size; placeholders by the merge units of their grids."""

    processor = "AutoImageProcessor"

    @staticmethod
    def pixels(
        processor, config, images: Sequence[Image.Image], keep_ratio: float | None
    ) -> tuple[dict, list]:
        merge = config.vision_config.spatial_merge_size
        media = processor(images=list(images), return_tensors="pt")
        if keep_ratio is not None:
            unit, resized = merge * config.vision_config.patch_size, []
            for image, (_, rows, columns) in zip(images, media["image_grid_thw"].tolist(), strict=True):
                rows, columns = nearest_grid(rows // merge, columns // merge, keep_ratio)
                resized.append(image.resize((columns * unit, rows * unit), Image.Resampling.BICUBIC))
            told = {"shortest_edge": unit**2, "longest_edge": processor.size["longest_edge"]}
            media = processor(images=resized, return_tensors="pt", size=told)
        counts = (media["image_grid_thw"].prod(-1) // merge**2).tolist()
        return {name: media[name] for name in ("pixel_values", "image_grid_thw")}, counts

    @staticmethod
    def columns(config, ids) -> dict:
        return {"mm_token_type_ids": (ids == config.image_token_id).int()}

    @staticmethod
    @contextmanager
    def any_size(model) -> Iterator[None]:
        yield


FAMILIES = {"llava": Llava, "qwen2_5_vl": Qwen, "qwen2_vl": Qwen}


def _chat_template(name: str, tokenizer) -> str | None:
    """The processor's chat template, which lies in a file of its own, or else the tokenizer's."""
    for file in ("chat_template.jinja", "chat_template.json"):
        told = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        path = cached_file(name, file, **told)
        if path is not None:
            try:
                text = Path(path).read_text(encoding="utf-8")
                return json.loads(text)["chat_template"] if file.endswith("json") else text
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                raise UsageError(
                    f"{file} of {name} holds no chat template ({first_sentence(error)}); give --prompt"
                ) from None
    if tokenizer.chat_template is None:
        raise UsageError(f"{name} has no chat template; give --prompt with {{image}} and {{question}}")
    return None
