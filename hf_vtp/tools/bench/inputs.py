"""Batches of prompts for a benchmark: random words around one random image each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ...families.table import FAMILIES, TOWERS
from ..processors import load_processor
from ..prompts import question_inputs
from .cli import UsageError, first_sentence

FIRST_WORD = 3  # ids below it are often the padding, the beginning and the end of texts
MEDIA = ("image", "video", "audio")
MARKS = [(f"{what}_start_token_id", f"{what}_end_token_id") for what in ("vision", "image")]
SMALL, LARGE = 16, 1024  # image tokens, about, by which a processor shows whether images differ in size
QUESTION = "?"
INSTEAD = "give a folder that holds the whole of its tokenizer and processor"


class Batches:
    """Makes batches for a model of one config; `any_size` says whether images differ in their tokens."""

    any_size = False

    def __init__(self, config: PreTrainedConfig):
        self.config = config

    def __call__(
        self, model: PreTrainedModel, rows: int, text_tokens: int, image_tokens: int | None, seed: int
    ) -> tuple[dict[str, Tensor], str]:
        """Inputs of `generate` where the model is, and the image's size, height x width in pixels.

        The image has about `image_tokens` tokens where there is a choice.
        """
        numbers = torch.Generator().manual_seed(seed)
        inputs, size = self.make(model, rows, text_tokens, image_tokens, numbers)
        dtypes = {name: model.dtype if x.is_floating_point() else x.dtype for name, x in inputs.items()}
        return {name: x.to(model.device, dtypes[name]) for name, x in inputs.items()}, size

    def look(self, model: PreTrainedModel) -> None:
        """Find out what only a processor and the model together show."""

    def make(self, model, rows: int, text_tokens: int, image_tokens: int | None, numbers) -> tuple:
        image, media, size = self.image(rows, image_tokens, numbers)
        words = random_words(self.config, rows, text_tokens, numbers)
        before = text_tokens // 2
        image = torch.tensor(image).expand(rows, -1)
        ids = torch.cat([words[:, :before], image, words[:, before:]], dim=1)  # [B, n]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **self.beside(ids), **media}, size

    def image(self, rows: int, image_tokens: int | None, numbers) -> tuple[list[int], dict[str, Tensor], str]:
        """The ids of one image in a prompt, what encodes `rows` of them, and their size."""
        raise NotImplementedError(f"{type(self).__name__} must make images")

    def beside(self, ids: Tensor) -> dict[str, Tensor]:
        """What a model is given of every column beside its id."""
        return {}


class OneSize(Batches):
    """Squares of the tower's size: of a projector that makes one row of each token."""

    @staticmethod
    def fits(config: PreTrainedConfig) -> bool:
        """Whether the config alone says how many tokens an image has."""
        row, vision = FAMILIES.get(config.model_type), getattr(config, "vision_config", None)
        plain = row is not None and row.projector and row.cell == 1 and not row.tiles
        known = vision is not None and getattr(vision, "model_type", None) in TOWERS
        return bool(plain and known and hasattr(config, "vision_feature_select_strategy"))

    def image(self, rows: int, image_tokens: int | None, numbers) -> tuple[list[int], dict[str, Tensor], str]:
        vision, prefix = self.config.vision_config, 0
        side, row = vision.image_size, TOWERS[vision.model_type]
        prefix = row.prefix if isinstance(row.prefix, int) else row.prefix(vision)
        tokens = (side // vision.patch_size) ** 2 + prefix
        tokens -= self.config.vision_feature_select_strategy == "default"  # which leaves out the first
        pixels = torch.randn(rows, 3, side, side, generator=numbers)
        return [self.config.image_token_id] * tokens, {"pixel_values": pixels}, f"{side}x{side}"


class Packed(Batches):
    """Near-squares of any size, whose patches are packed into one sequence and merged cell by cell."""

    any_size = True

    @staticmethod
    def fits(config: PreTrainedConfig) -> bool:
        vision = getattr(config, "vision_config", None)
        return all(
            hasattr(vision, name) for name in ("spatial_merge_size", "temporal_patch_size", "in_channels")
        )

    def image(self, rows: int, image_tokens: int | None, numbers) -> tuple[list[int], dict[str, Tensor], str]:
        config, vision = self.config, self.config.vision_config
        merge, patch = vision.spatial_merge_size, vision.patch_size
        height, width = near_square(image_tokens)
        grid = torch.tensor([[1, height * merge, width * merge]] * rows)
        values = vision.in_channels * vision.temporal_patch_size * patch**2  # in one patch
        pixels = torch.randn(int(grid.prod(-1).sum()), values, generator=numbers)
        marks = next((pair for pair in MARKS if hasattr(config, pair[0])), None)
        first, last = ([getattr(config, name)] for name in marks) if marks else ([], [])
        size = f"{height * merge * patch}x{width * merge * patch}"
        media = {"pixel_values": pixels, "image_grid_thw": grid}
        return [*first, *[config.image_token_id] * (height * width), *last], media, size

    def beside(self, ids: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (ids == self.config.image_token_id).int()}


class Processed(Batches):
    """Noise through the processor of a checkpoint, for every other family; the words follow its prompt."""

    def __init__(self, config: PreTrainedConfig, name: str):
        super().__init__(config)
        self.name = name
        with self.in_one_sentence():
            self.processor = load_processor(name, config)
        if getattr(self.processor, "tokenizer", None) is None:
            raise UsageError(f"{name} has no processor for pictures with text; {INSTEAD}")

    @contextmanager
    def in_one_sentence(self) -> Iterator[None]:
        """Raise UsageError for whatever a processor that lacks a part may raise."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"the processor of {self.name} makes no prompt ({first_sentence(error)}); {INSTEAD}"
            ) from None

    def make(self, model, rows: int, text_tokens: int, image_tokens: int | None, numbers) -> tuple:
        inputs, size = self.prompts(model, rows, image_tokens, numbers)
        ids = inputs["input_ids"]
        special = self.processor.tokenizer.all_special_ids
        words = random_words(self.config, rows, text_tokens, numbers, special).to(ids.device)
        after = {"input_ids": words, "attention_mask": torch.ones_like(words)}
        for name, x in inputs.items():
            if x.shape == ids.shape:
                inputs[name] = torch.cat([x, after.get(name, torch.zeros_like(words)).to(x.dtype)], dim=1)
        return inputs, size

    def prompts(self, model, rows: int, image_tokens: int | None, numbers) -> tuple[dict[str, Tensor], str]:
        """A question about a picture, in the model's chat template where it has one."""
        height, width = self.pixels(image_tokens)
        noise = torch.randint(256, (rows, height, width, 3), generator=numbers, dtype=torch.uint8)
        pictures = [Image.fromarray(one.numpy()) for one in noise]
        return dict(question_inputs(model, self.processor, pictures, QUESTION)), f"{height}x{width}"

    def pixels(self, image_tokens: int | None) -> tuple[int, int]:
        """Height and width of a picture with about so many tokens, without a number of the tower's size."""
        vision = self.config.vision_config
        side = getattr(vision, "image_size", None) or 224
        if image_tokens is None:
            return (side, side) if isinstance(side, int) else tuple(side)
        patch = getattr(vision, "patch_size", 16)
        cell = (patch if isinstance(patch, int) else patch[0]) * cell_of(self.config)
        return tuple(count * cell for count in near_square(image_tokens))

    def look(self, model: PreTrainedModel) -> None:
        """Find whether the processor makes more tokens of a larger picture."""
        counts = {}
        for tokens in (SMALL, LARGE):
            with self.in_one_sentence():
                inputs, _ = self.prompts(model, 1, tokens, torch.Generator().manual_seed(0))
            counts[tokens] = inputs["input_ids"].shape[1]
        self.any_size = counts[SMALL] != counts[LARGE]


def cell_of(config: PreTrainedConfig) -> int:
    """Patches along one side of what a projector makes one row of."""
    row = FAMILIES.get(config.model_type)
    if row is None:
        return 1
    return row.cell if isinstance(row.cell, int) else row.cell(config)


def batches_for(config: PreTrainedConfig, name: str) -> Batches:
    """What makes batches for a model: of its config alone where that says enough, else its processor.

    Raises UsageError where the checkpoint has no processor and needs one.
    """
    kind: Callable = next((kind for kind in (OneSize, Packed) if kind.fits(config)), None)
    return Processed(config, name) if kind is None else kind(config)


def random_words(
    config: PreTrainedConfig, rows: int, count: int, numbers: torch.Generator, special: list[int] = ()
) -> Tensor:
    """Ids [B, n] of text, none of which stands for anything but a word."""
    marks = [name for pair in MARKS for name in pair]
    names = [f"{medium}_token_id" for medium in MEDIA] + marks
    taken = [i for name in names if isinstance(i := getattr(config, name, None), int)]
    words = torch.arange(FIRST_WORD, config.get_text_config().vocab_size)
    words = words[~torch.isin(words, torch.tensor([*taken, *special, -1]))]
    return words[torch.randint(len(words), (rows, count), generator=numbers)]


def near_square(tokens: int) -> tuple[int, int]:
    """Rows and columns of a grid with about so many tokens."""
    rows = max(1, round(tokens**0.5))
    return rows, max(1, round(tokens / rows))
