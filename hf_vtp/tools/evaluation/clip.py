"""The vision side of CLIP in an evaluation: images as it takes them, and their embeddings by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor, nn

from ...apply import vtp_stats
from ..bench.cli import UsageError
from ..cases import pruned_as
from ..towers import LoadedTower
from .cases import DOWNSAMPLE, Case
from .downsample import nearest_grid, square


@dataclass
class VisionSide:
    """The vision tower with its projection, and images as it takes them."""

    tower: LoadedTower
    processor: object

    @property
    def model(self) -> nn.Module:
        return self.tower.model

    @property
    def side(self) -> int:
        """Rows of the grid of tokens, as many as columns."""
        return self.model.config.image_size // self.model.config.patch_size

    def pixels(self, images: list[Image.Image], cases: Sequence[Case]) -> dict[int, Tensor]:
        """The pixel values [B, 3, S, S] that the cases need, by their side in tokens."""
        return {side: self._pixels(images, side) for side in dict.fromkeys(map(self.size, cases))}

    def size(self, case: Case) -> int:
        """Side of the images of a case, in tokens."""
        if case.method != DOWNSAMPLE:
            return self.side
        return nearest_grid(self.side, self.side, case.keep_ratio)[0]

    def _pixels(self, images: list[Image.Image], side: int) -> Tensor:
        size = side * self.model.config.patch_size
        kwargs = {} if side == self.side else square(self.processor, size)
        values = self.processor(images=images, return_tensors="pt", **kwargs)["pixel_values"]
        if values.shape[1:] != (3, size, size):
            raise UsageError(f"the image processor does not make the {size}x{size} pixels the model takes")
        return values.to(self.model.device, self.model.dtype)

    def forward(self, case: Case, pixels: dict[int, Tensor]) -> Tensor:
        """Image embeddings [B, D] of the model as it is now."""
        side = self.size(case)
        stretch = {} if side == self.side else {"interpolate_pos_encoding": True}
        return self.tower.embed({"pixel_values": pixels[side], **stretch})

    def embed(self, case: Case, pixels: dict[int, Tensor]) -> tuple[Tensor, list[int]]:
        """Image embeddings [B, D] in float32 on the CPU, and the number of tokens kept of each image."""
        with pruned_as(self.model, case.config) as model:
            embeds = self.forward(case, pixels).float().cpu()
            kept = vtp_stats(model).num_kept if case.config else [self.size(case) ** 2] * len(embeds)
        return embeds, kept
