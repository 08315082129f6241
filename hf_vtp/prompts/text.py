"""The text around images, for methods that compare tokens with the prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """Prompts and which of them each image stands in."""

    embeds: Tensor  # [rows, T, D'] embeddings of the prompts' columns
    valid: Tensor  # [rows, T] True for text, False for placeholders and padding
    rows: dict[str, Tensor]  # by argument with pixels, the prompt of each image, [images]
    medium: str = ""  # the argument that is being encoded

    def of(self, images: range | list[int]) -> dict:
        """What VisionTokens holds of the text around some images."""
        rows = self.rows[self.medium].to(self.embeds.device)[torch.tensor(images, device=self.embeds.device)]
        return {"text": self.embeds[rows], "text_valid": self.valid[rows]}
