"""What stays of encoded images, and a prompt condensed to it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from .condense import Condensed, Memory

DEEPSTACK = "deepstack_features"  # of an encoder's output: what is added after layers of the language model


@dataclass
class Encoded:
    """What was kept of the images, or of the videos, of a call."""

    kept: Tensor  # bool [placeholders] which of them stay
    output: ModelOutput  # of the encoder; its `pooler_output` has the kept rows, [K, D] an image
    deep: list[Tensor]  # [K, D] of all images, for each of the language model's first layers
    given: object = None  # what the encoder returned
    sizes: Tensor | None = None  # [K] tokens that each kept row stands for; None = one each

    @classmethod
    def of(cls, output: ModelOutput, rows: list[Tensor], kept: Tensor) -> Encoded:
        """The encoder's output with only these rows of each image."""
        encoder_output = output
        output = copy.copy(output) if isinstance(output, ModelOutput) else BaseModelOutputWithPooling()
        output.pooler_output = rows
        given = getattr(output, DEEPSTACK, None) or []
        deep = [(x if isinstance(x, Tensor) else torch.cat(list(x))) for x in given]
        deep = [x[kept.to(x.device)] for x in deep]
        if deep:  # an image each, or in older releases not split
            lengths = [len(row) for row in rows]
            whole = isinstance(given[0], Tensor)
            setattr(output, DEEPSTACK, [x if whole else torch.split(x, lengths) for x in deep])
        return cls(kept, output, deep, encoder_output)


@dataclass
class Reading:
    """A prompt condensed, and the features that go into it."""

    prompt: Condensed
    rows: Tensor  # [B, m] row of `features` that stands in each condensed column, -1 text, -2 padding
    features: Tensor  # [T, D] of what was kept
    memory: Memory  # to be left on the cache
    media: dict[str, ModelOutput]  # by "image" or "video", what its encoder returned, kept rows only
    # [..., B, 1] how far the next position lies from the last kept one's + 1; None = nowhere
    shift: Tensor | None
    deep: list[Tensor]  # [T, D] what is added to them after each of the language model's first layers
    encoded: dict[str, Encoded]  # by argument with pixels
    arguments: dict  # of the call, those that speak of pixels
    offset: int = 0  # columns that `generate` has read so far
