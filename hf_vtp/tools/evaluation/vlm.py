"""A vision-language model that answers questions, pruned as a case says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from ...apply import vtp_stats
from ...stats import VTPStats
from ..bench.cli import UsageError
from ..cases import pruned_as
from ..prompts import Prompts, new_tokens
from .cases import DOWNSAMPLE, Case
from .downsample import any_size, smaller

CANNOT = (ValueError, TypeError, RuntimeError, AttributeError, KeyError, UsageError)
NEAR = 0.2  # share of the tokens by which a grid of few of them may miss what was wanted


class Answerer:
    """Asks a model for its greedy answers, of at most `max_new_tokens`."""

    def __init__(self, model: PreTrainedModel, prompts: Prompts, max_new_tokens: int):
        self.model, self.prompts, self.max_new_tokens = model, prompts, max_new_tokens

    def inputs(self, images: Sequence, questions: Sequence[str], case: Case) -> tuple[dict, list[int]]:
        """The inputs of the case's model, on its device, and the number of image tokens of each row."""
        if case.method != DOWNSAMPLE:
            return self.prompts(images, questions)
        image_processor = self.prompts.processor.image_processor
        images, kwargs = smaller(image_processor, self.model.config, images, case.keep_ratio)
        return self.prompts(images, questions, **kwargs)

    def takes(self, case: Case) -> bool:
        """Whether images can be made smaller so that they have about the tokens of a case, shown by one."""
        picture = [Image.new("RGB", (512, 512))]
        _, (whole,) = self.inputs(picture, ["?"], Case())
        try:
            inputs, (count,) = self.inputs(picture, ["?"], case)
            self.generate(case, inputs, 1)
        except torch.OutOfMemoryError:
            raise
        except CANNOT:
            return False
        return abs(count / whole - case.keep_ratio) < NEAR

    def generate(self, case: Case, inputs: dict, count: int | None = None) -> Tensor:
        """New tokens [B, n] of the model as it is now; with `count`, so many in every row."""
        kwargs = {"max_new_tokens": count or self.max_new_tokens, "do_sample": False, "num_beams": 1}
        if count:
            kwargs["min_new_tokens"] = count
        kwargs["pad_token_id"] = self.prompts.tokenizer.pad_token_id
        with any_size(self.model) if case.method == DOWNSAMPLE else nullcontext():
            return new_tokens(self.model, self.model.generate(**inputs, **kwargs), inputs)

    def __call__(self, case: Case, inputs: dict, counts: list[int]) -> tuple[list[str], list[int]]:
        """The model's answer to each row, and the number of image tokens kept of it."""
        with pruned_as(self.model, case.config) as model:
            output = self.generate(case, inputs)
            kept = kept_of_rows(vtp_stats(model), inputs["pixel_values"], counts) if case.config else counts
        texts = self.prompts.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [text.strip() for text in texts], list(kept)


def kept_of_rows(stats: VTPStats, pixels: Tensor, counts: Sequence[int]) -> list[int]:
    """How many of each row's `counts` image tokens were kept, where a picture may be several images.

    Those of a picture are the next in `stats`: as many as its `pixels` [B, images, 3, H, W] that are no
    padding, or else so many that each has as many tokens as any other.
    """
    images = [1] * len(counts)
    if len(stats.num_kept) != len(counts):
        if pixels.dim() == 5 and len(pixels) == len(counts):
            images = (pixels != 0).flatten(2).any(dim=-1).sum(dim=1).tolist()
        else:
            images = [round(count * len(stats.num_kept) / sum(counts)) for count in counts]
    kept, first = [], 0
    for number, count in zip(images, counts, strict=True):
        own = slice(first, first + number)
        first += number
        # a share: not every token of an image has a placeholder, nor comes each placeholder from a token
        kept.append(round(count * sum(stats.num_kept[own]) / max(1, sum(stats.num_tokens[own]))))
    return kept
