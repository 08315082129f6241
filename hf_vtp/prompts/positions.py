"""Positions of a full prompt's columns as the model itself gives them: counted, or by m-RoPE's three rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..names import parameters
from .condense import Memory

SECONDS = "video_second_per_grid"  # what some forwards call second_per_grids
OF_TEXT = {
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "kwargs",
}  # others are of images


class Positions:
    """The part of a language-model family's adapter that knows positions.

    A model with `get_rope_index` has m-RoPE: rows of time, height and width, which an image advances by less
    than its number of tokens.
    """

    inner: nn.Module
    first_position = 0  # where the language model counts from

    @property
    def rope_arguments(self) -> list[str]:
        """Arguments of images that m-RoPE's positions follow from."""
        index = getattr(type(self.inner), "get_rope_index", None)
        return [name for name in parameters(index)[1:] if name not in OF_TEXT] if index else []

    def of_images(self, arguments: dict) -> dict:
        """Arguments of `get_rope_index` that are of images, taken from those of a forward."""
        audio = arguments.get("feature_attention_mask")
        others = {
            "use_audio_in_video": bool(arguments.get("use_audio_in_video")),
            "audio_seqlens": arguments.get("audio_feature_lengths") if audio is None else audio.sum(dim=1),
            "second_per_grids": arguments.get(SECONDS),
        }  # which forwards know by another name
        return {name: others.get(name, arguments.get(name)) for name in self.rope_arguments}

    @property
    def has_rope_index(self) -> bool:
        return hasattr(self.inner, "get_rope_index")

    def local_positions(self, arguments: dict, mask: Tensor, generating: bool) -> tuple[Tensor, Tensor]:
        """Positions [..., B, n] the model itself gives to new columns, from their start on, and the next.

        `mask` [B, n] is theirs. `generate` counts tokens, `forward` counts columns: that is Transformers'
        way.
        """
        place = mask.long().cumsum(dim=-1) if generating else torch.ones_like(mask).cumsum(dim=-1)
        place, following = (place - 1).clamp(min=0), place[:, -1:]
        if not self.has_rope_index:
            return place, following
        ids, given = arguments.get("input_ids"), self.of_images(arguments)
        typed = "mm_token_type_ids" in given  # else the model counts images by the ids around them
        known = given.get("mm_token_type_ids") if typed else arguments.get("attention_mask")
        if (
            ids is None
            or known is None
            or all(x is None for k, x in given.items() if k.endswith("_grid_thw"))
        ):
            if generating:
                self.inner.rope_deltas = torch.zeros_like(following)
            return place.expand(3, -1, -1), following.expand(3, -1, -1)
        if typed:
            given["mm_token_type_ids"] = known[:, -ids.shape[1] :]
        try:
            place, self.inner.rope_deltas = self.inner.get_rope_index(ids, attention_mask=mask, **given)
        except StopIteration:
            raise ValueError(
                "the prompt holds more groups of placeholders than images and videos; give a row of "
                "image_grid_thw or video_grid_thw for each, as the processor does"
            ) from None
        return place, (place.amax(dim=(0, 2))[:, None] + 1).expand(3, -1, -1)

    def carried_positions(self, memory: Memory) -> Tensor:
        """Positions of all condensed columns in the form in which forwards take them.

        Beside m-RoPE's three rows stands one of text positions, [4, B, m]: masks are made from it.
        """
        if not self.has_rope_index:
            return memory.position_ids
        text = (memory.mask.cumsum(dim=-1) - 1).clamp(min=0)
        return torch.cat([text[None], memory.position_ids.expand(3, -1, -1)])

    def carried_shift(self, shift: Tensor | None) -> Tensor | None:
        """A shift of positions in that form."""
        if shift is None or not self.has_rope_index:
            return shift
        return torch.cat([torch.zeros_like(shift[:1]), shift])
