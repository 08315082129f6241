"""CLIP: image embeddings of every case, classes and captions as directions, and what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPTextModelWithProjection

from ...apply import vtp_stats
from ..bench.cli import UsageError
from ..bench.clip import INSTEAD
from ..cards.hub import load, without_code
from .cases import DOWNSAMPLE, Case, applied
from .downsample import nearest_grid, smaller

PROMPTS = ("a photo of a {}.",)
TEXT_BATCH = 256


class TextSide:
    """Texts to directions; raises UsageError where the checkpoint has no text tower or tokenizer."""

    def __init__(self, name: str, dtype: torch.dtype, device: torch.device):
        of = partial(CLIPTextModelWithProjection.from_pretrained, dtype=dtype, output_loading_info=True)
        model, report = load(name, lambda name, **told: of(name, **told), INSTEAD)
        if report["missing_keys"]:
            raise UsageError(f"{name} holds no trained text tower; {INSTEAD}")
        self.model = model.to(device).eval()
        self.tokenizer = load(name, without_code(AutoTokenizer), INSTEAD)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[n, D] of length one."""
        found = []
        longest = self.model.config.max_position_embeddings
        for start in range(0, len(texts), TEXT_BATCH):
            batch = list(texts[start : start + TEXT_BATCH])
            told = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
            tokens = self.tokenizer(batch, **told).to(self.model.device)
            embeds = self.model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).text_embeds
            found.append(normalize(embeds.float(), dim=-1))
        return torch.cat(found)

    def classes(self, names: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """The mean direction of each class's prompts, [C, D]."""
        embeds = self([prompt.format(name) for name in names for prompt in prompts])
        return normalize(embeds.unflatten(0, (len(names), len(prompts))).mean(dim=1), dim=-1)


@dataclass
class VisionSide:
    """The vision tower with its projection, and images as it takes them."""

    model: nn.Module
    processor: object

    @property
    def side(self) -> int:
        """Rows of the grid of tokens, as many as columns."""
        return self.model.config.image_size // self.model.config.patch_size

    def pixels(self, images: list[Image.Image], cases: Sequence[Case]) -> dict[int, Tensor]:
        """By side in tokens the pixel values [B, 3, S, S] that the cases need."""
        return {side: self._pixels(images, side) for side in dict.fromkeys(map(self.size, cases))}

    def size(self, case: Case) -> int:
        """Side of its images in tokens."""
        return (
            nearest_grid(self.side, self.side, case.keep_ratio)[0] if case.method == DOWNSAMPLE else self.side
        )

    def _pixels(self, images: list[Image.Image], side: int) -> Tensor:
        told = {} if side == self.side else smaller(self.processor, side * self.model.config.patch_size)
        values = self.processor(images=images, return_tensors="pt", **told)["pixel_values"]
        size = side * self.model.config.patch_size
        if values.shape[1:] != (3, size, size):
            raise UsageError(f"the image processor does not make the {size}x{size} pixels the model takes")
        return values.to(self.model.device, self.model.dtype)

    def forward(self, case: Case, pixels: dict[int, Tensor]) -> Tensor:
        """Image embeddings [B, D] of the model as it is now."""
        side = self.size(case)
        return self.model(pixel_values=pixels[side], interpolate_pos_encoding=side != self.side).image_embeds

    def embed(self, case: Case, pixels: dict[int, Tensor]) -> tuple[Tensor, list[int]]:
        """Image embeddings [B, D] in float32 on the CPU and the tokens that were left of each image."""
        with applied(self.model, case) as model:
            embeds = self.forward(case, pixels).float().cpu()
            kept = vtp_stats(model).num_kept if case.config else [self.size(case) ** 2] * len(embeds)
        return embeds, kept
