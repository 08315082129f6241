"""What a row of data says of a vision tower; the rows themselves are in families/."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from ..config import VTPConfig
    from .tower import Tower

Grid = tuple[int, int, int]  # frames, rows and columns of an image, in patches


def find(module: nn.Module, paths: str) -> nn.Module | None:
    """The first of several dotted paths, with | between them, that leads somewhere from a module.

    Several, because releases of Transformers rename attributes. An empty path is the module itself.
    """
    for path in paths.split("|"):
        found = module
        for name in path.split(".") if path else ():
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None


def grids_of_pixels(module: nn.Module, arguments: dict) -> list[Grid]:
    """Grids of images [B, C, H, W], cut into patches of the config's `patch_size` (an int or two)."""
    pixels, patch = arguments.get("pixel_values"), module.config.patch_size
    if pixels is None:
        return []  # Transformers says what is missing
    height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
    return [(1, pixels.shape[-2] // height, pixels.shape[-1] // width)] * pixels.shape[0]


def _as_they_are(rope: Tensor) -> Tensor:
    return rope


@dataclass(frozen=True)
class TowerRow:
    """A vision tower with a batch axis, described by where its parts are.

    Args:
        layers: path from the tower to the list of its encoder layers.
        attention: path from a layer to its attention.
        projections: names in the attention of what gives queries, keys and values, or of one that gives all.
            Each may have alternatives, as paths have; name what comes last before the softmax, save rotation.
        attention_norm: path from a layer to the norm before its attention; "" if there is none.
        linear: names in the attention of what hands the projections their input, where those are norms.
        prefix: tokens in front of the patches, [CLS] and registers; a number, or a function of the config.
        grids: a function of the tower and its forward's arguments: the grid of each image.
        cls: whether the first of the prefix tokens is a [CLS] token.
        rope: what a layer takes for rotary positions [B, 1, K, d] of images that kept different tokens.
        head: path from the tower to the module that pools all its tokens, see pooling.py; "" if none does.
        norm: path to the norm between the last layer and the tower's last_hidden_state; "" if there is none.
        alone: whether the tower can be pruned without a language model.
        pattern: the class that prunes it; None for PlainTower.
    """

    layers: str
    attention: str
    projections: str = "q_proj k_proj v_proj"
    attention_norm: str = "layer_norm1|norm1|layernorm_before|rms_norm1|attention_norm"
    linear: str = ""
    prefix: int | Callable[[object], int] = 1
    grids: Callable[[nn.Module, dict], list[Grid]] = grids_of_pixels
    cls: bool = True
    rope: Callable[[Tensor], object] = _as_they_are
    head: str = ""
    norm: str = ""
    alone: bool = True
    pattern: type[Tower] | None = None

    def num_prefix_tokens(self, module: nn.Module) -> int:
        """Tokens in front of the patches."""
        return self.prefix if isinstance(self.prefix, int) else self.prefix(module.config)

    @property
    def row_wise(self) -> bool:
        """Whether a projector can be asked for the row of one token."""
        return True

    def depth(self, module: nn.Module) -> int:
        """Encoder layers of a tower."""
        return len(find(module, self.layers))

    def make(self, module: nn.Module, config: VTPConfig, stages: list[tuple[int, float]], **options) -> Tower:
        """The tower that prunes a module after some of its layers."""
        from .plain import PlainTower

        return (self.pattern or PlainTower)(self, module, config, stages, **options)
