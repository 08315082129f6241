"""The vision side of an evaluation: images as a model takes them, and their embeddings by case."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor, nn

from ...apply import vtp_stats
from ...families.table import find_tower, tower_row
from ...pruning.tokens import num_keep
from ..bench.cli import UsageError, first_sentence
from ..cases import pruned_as
from ..classifiers import classifies, classify
from ..prompts import on_device
from ..towers import LoadedTower
from .cases import DOWNSAMPLE, Case
from .downsample import any_size, nearest_grid, square

Inputs = dict[float | None, dict[str, Tensor]]  # of a batch, by `share`


@dataclass
class VisionSide:
    """A model that embeds images, and its image processor."""

    tower: LoadedTower
    processor: object

    @property
    def model(self) -> nn.Module:
        return self.tower.model

    @property
    def classifies(self) -> bool:
        return classifies(self.model)

    @property
    def any_number(self) -> bool:
        """Whether the image processor bounds the patches of an image, whose number follows its shape."""
        return hasattr(self.processor, "max_num_patches")

    def takes(self, case: Case) -> bool:
        """Whether the model takes images of the size that a case has, shown by one of them."""
        try:
            self.forward(case, self.inputs([Image.new("RGB", (64, 64))], [case]))
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError):
            return False
        return True

    def inputs(self, images: list[Image.Image], cases: Sequence[Case]) -> Inputs:
        """What the cases need of a batch of images, where the model is."""
        return {share: self._inputs(images, share) for share in dict.fromkeys(map(self.share, cases))}

    def share(self, case: Case) -> float | None:
        """The share of tokens that a case has by smaller images, None for those of the usual size."""
        return case.keep_ratio if case.method == DOWNSAMPLE else None

    def _inputs(self, images: list[Image.Image], share: float | None) -> dict[str, Tensor]:
        made = self.processor(images=images, return_tensors="pt", **self.smaller(share))
        taken = inspect.signature(type(self.model).forward).parameters
        return on_device(self.model, {name: x for name, x in made.items() if name in taken})

    def smaller(self, share: float | None) -> dict:
        """Arguments of the image processor that have it make about that share of the tokens."""
        if share is None:
            return {}
        if self.any_number:
            return {"max_num_patches": num_keep(self.processor.max_num_patches, share)}
        config = find_tower(self.model).config
        side = config.image_size // config.patch_size
        return square(self.processor, nearest_grid(side, side, share)[0] * config.patch_size)

    def num_tokens(self, inputs: dict[str, Tensor]) -> list[int]:
        """The number of patches of each image, before pruning."""
        tower = find_tower(self.model)
        grids = tower_row(tower).grids(tower, inputs)
        return [frames * rows * columns for frames, rows, columns in grids]

    def forward(self, case: Case, inputs: Inputs, call: Callable | None = None):
        """Image embeddings [B, D] of the model as it is now, or what `call` makes of its inputs."""
        share, call = self.share(case), call or self.tower.embed
        if share is None or self.any_number:
            return call(inputs[share])
        with any_size(self.model):
            return call(inputs[share])

    def embed(self, case: Case, inputs: Inputs) -> tuple[Tensor, list[int]]:
        """Image embeddings [B, D] in float32 on the CPU, and the number of tokens kept of each image.

        Raises UsageError for images that the unpruned model does not take.
        """
        (embeds,), kept = self._run(case, inputs, lambda own: [self.tower.embed(own)])
        return embeds, kept

    def classify(self, case: Case, inputs: Inputs) -> tuple[Tensor, Tensor, list[int]]:
        """The same of a classifier: what its head reads of each image [B, D], logits [B, C], tokens kept."""
        (pooled, logits), kept = self._run(case, inputs, partial(classify, self.model))
        return pooled, logits, kept

    def _run(self, case: Case, inputs: Inputs, call: Callable) -> tuple[list[Tensor], list[int]]:
        with pruned_as(self.model, case.config) as model:
            try:
                made = [x.float().cpu() for x in self.forward(case, inputs, call)]
            except torch.OutOfMemoryError:
                raise
            except (ValueError, RuntimeError) as error:
                if case.config is not None:
                    raise
                raise UsageError(
                    f"the model does not take what the image processor makes: {first_sentence(error)}"
                ) from None
            kept = vtp_stats(model).num_kept if case.config else self.num_tokens(inputs[self.share(case)])
        return made, list(kept)
