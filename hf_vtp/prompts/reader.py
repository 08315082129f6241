"""Reading a prompt with images in it: encode them, then condense the columns they stand in."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..pruning.ragged import places
from ..pruning.tokens import take
from ..towers.tower import Tower
from .condense import Memory, condense, plain_memory
from .encoded import Encoded, Reading
from .positions import Positions
from .refusals import (
    refuse_beyond_window,
    refuse_encoded,
    refuse_masks,
    refuse_packed,
    refuse_padding_within,
    refuse_without_types,
    smallest_window,
)
from .text import Text
from .weights import Weights, log_sizes
from .windows import Windows


class PromptReader(Positions):
    """What of a language-model family concerns prompts; a family names its media and how they are encoded."""

    model: nn.Module
    tower: Tower
    inner: nn.Module  # puts image features into the prompt
    cache_name: str  # what its forward calls the cache
    windows: Windows
    weights: Weights
    config: VTPConfig
    reads_text = True
    media: dict[str, str]  # argument with pixels: attribute of the config with its placeholder id
    pixel_arguments: tuple[str, ...]  # further arguments that speak of pixels only

    def encode(self, arguments: dict) -> dict[str, Encoded]:
        """The pixels among a forward's arguments encoded, by argument name, in the placeholders' order."""
        raise NotImplementedError(f"{type(self).__name__} must encode its images")

    def tokens_per_image(self, arguments: dict) -> dict[str, list[int]]:
        """Placeholders of each image, by argument with pixels; {} where that is not known beforehand."""
        return {}

    def text_around(
        self, ids: Tensor | None, embeds: Tensor | None, mask: Tensor, placeholders: dict, media: dict
    ) -> Text:
        """The text of a call's new columns, whose mask is [B, n]; `media` as of `tokens_per_image`."""
        is_text, rows = mask != 0, {}
        for where in placeholders.values():
            is_text = is_text & ~where
        for name, counts in media.items():
            row = torch.nonzero(placeholders[name])[:, 0]
            rows[name] = row[torch.tensor([0, *counts[:-1]], device=row.device).cumsum(dim=0)]
        index = places(is_text)
        text = take(embeds if ids is None else ids, index.clamp(min=0))
        if ids is not None:  # of padding any word: the first column may hold an id beyond the vocabulary
            text = self.embed(text.masked_fill(index < 0, 0))
        return Text(text, index >= 0, rows, next(iter(rows)))

    def columns(self, arguments: dict) -> dict[str, Tensor]:
        """The arguments that have an entry for each column of the text, [B, n, ...]."""
        texts = [name for name in ("input_ids", "inputs_embeds") if arguments.get(name) is not None]
        shape = arguments[texts[0]].shape[:2]
        handled = {*texts, "attention_mask", "position_ids", *self.media_names(arguments)}
        others = [
            name
            for name, x in arguments.items()
            if name not in handled and isinstance(x, Tensor) and x.dim() > 1 and x.shape[:2] == shape
        ]
        return {name: arguments[name] for name in (*texts, *others)}

    def beside_embeds(self, ids: Tensor, rows: Tensor) -> dict:
        """What the language model is handed of ids beside their embeddings."""
        return {}

    def read(self, arguments: dict, memory: Memory | None, generating: bool = False) -> Reading:
        """Encode the images of a call and condense its new columns."""
        ids, embeds, mask = (arguments.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
        text = embeds if ids is None else ids
        batch, n = text.shape[:2]
        past = self.cached(arguments)
        if mask is not None:
            mask = of_ints(mask)
        else:
            mask = torch.ones(
                batch, n + past + (memory.dropped if memory else 0), dtype=torch.long, device=text.device
            )
        if memory is None:
            seen = mask[:, :past].long()
            start = seen.sum(dim=-1, keepdim=True) if generating else torch.full_like(mask[:, :1], past)
            memory = plain_memory(seen, start + self.first_position)
        else:
            memory = memory.rows(batch).upto(past)
        check_columns(mask, memory.length + n)
        self.check_length(memory.length + n)
        placeholders, media = self.placeholders(ids, embeds), self.tokens_per_image(arguments)
        for name, counts in media.items():
            self.check_placeholders(name, int(placeholders[name].sum()), sum(counts))
        positions = self.positions_of(arguments, memory, mask[:, -n:], generating)
        if "text" in self.tower.needs:
            around = functools.partial(self.text_around, ids, embeds, mask[:, -n:], placeholders)
            self.tower.call.text_around = around  # for a tower that knows the counts only afterwards
            self.tower.call.text = around(media) if media else None
        try:
            encoded = self.encode(arguments)
        finally:
            self.tower.call.text = self.tower.call.text_around = None
        for name, part in encoded.items():
            self.check_placeholders(name, int(placeholders[name].sum()), len(part.kept))
        alive, rows, offset = mask[:, memory.length :] != 0, torch.full_like(mask[:, memory.length :], -1), 0
        features = []
        for name, part in encoded.items():
            where = placeholders[name]
            stays = where.masked_scatter(where, part.kept.to(where.device))
            order = stays.flatten().long().cumsum(dim=0).view_as(rows) - 1 + offset
            rows = torch.where(stays, order.to(rows.dtype), rows)
            alive = alive & (stays | ~where)
            features += part.output.pooler_output
            offset = sum(map(len, features))
        prompt = condense(alive, *positions, self.config.positions, memory.next_position)
        refuse_padding_within(self.model, prompt.mask, past)
        shift = prompt.next_position - 1 - prompt.position_ids[..., -1:]
        rows = prompt.take(rows).masked_fill(prompt.mask == 0, -2)
        return Reading(
            prompt,
            rows,
            torch.cat(features) if features else torch.empty(0, 0),
            memory.then(prompt, n, log_sizes(encoded.values(), rows)),
            {"video" if "video" in name else "image": part.output for name, part in encoded.items()},
            shift if bool(shift.any()) else None,
            [torch.cat(parts) for parts in zip(*(part.deep for part in encoded.values()), strict=True)],
            encoded,
            {name: arguments[name] for name in self.media_names(arguments)},
        )

    def positions_of(
        self, arguments: dict, memory: Memory, mask: Tensor, generating: bool
    ) -> tuple[Tensor, Tensor]:
        """Positions [..., B, n] of new full columns with the mask [B, n], and [..., B, 1] of the next."""
        given = arguments.get("position_ids")
        if given is not None:
            given = given[..., -mask.shape[1] :].expand(*given.shape[:-2], *mask.shape)
            given = given + self.first_position if generating else given  # `generate` adds it itself
            return given, given.amax(dim=-1, keepdim=True) + 1
        local, following = self.local_positions(arguments, mask, generating)
        return local + memory.next_position, following + memory.next_position

    def placeholders(self, ids: Tensor | None, embeds: Tensor | None) -> dict[str, Tensor]:
        """Where each medium's placeholders are, bool [B, n] by argument name."""
        where = {}
        for name, attribute in self.media.items():
            token = getattr(self.model.config, attribute)
            if ids is not None:
                where[name] = ids == token
            else:
                sample = self.embed(torch.tensor(token, device=embeds.device)).to(embeds.device)
                where[name] = (embeds == sample).all(dim=-1)
        return where

    def check_length(self, columns: int) -> None:
        """Raise NotImplementedError for more columns than layers attend to that cannot count full ones."""
        if not self.windows.count_full_columns():
            refuse_beyond_window(columns, smallest_window(self.model))

    def check_placeholders(self, name: str, found: int, expected: int) -> None:
        if found != expected:
            raise ValueError(
                f"the prompt has {found} placeholders ({self.media[name]}) for the {expected} tokens of "
                f"{name}; give one for each token of the unpruned model, as its processor does"
            )

    def embed(self, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """Embeddings of ids [B, n]; of columns that hold a row of features or padding, of any id.

        A placeholder's id may lie beyond the vocabulary.
        """
        if rows is not None:
            ids = ids.masked_fill(rows.to(ids.device) != -1, 0)
        return self.inner.get_input_embeddings()(ids)

    def cached(self, arguments: dict) -> int:
        """How many columns a call's cache holds."""
        cache = arguments.get(self.cache_name)
        return 0 if cache is None else int(cache.get_seq_length())

    def media_names(self, arguments: dict) -> set[str]:
        """The arguments that speak of pixels."""
        return {name for name in arguments if name in self.media or name in self.pixel_arguments}

    def has_media(self, arguments: dict) -> bool:
        """Whether a call brings images, as pixels or encoded (newer `generate` passes an empty dict)."""
        pixels = any(arguments.get(name) is not None for name in self.media)
        return pixels or bool(arguments.get("mm_encoder_outputs"))

    def refuse(self, arguments: dict) -> None:
        """Raise NotImplementedError for what cannot be supported, before any compute."""
        refuse_encoded(arguments)
        if arguments.get("cache_implementation") == "paged":
            raise NotImplementedError(
                "a paged cache cannot hold a pruned prompt; use generate with another cache"
            )
        text = arguments.get("input_ids", arguments.get("inputs_embeds"))
        if isinstance(text, Tensor) and text.is_meta:
            raise NotImplementedError(
                "which columns of a prompt leave depends on its ids, and on the meta device there are none; "
                "run the vision tower alone there"
            )
        refuse_masks(arguments.get("attention_mask"))
        attention = self.model.config.get_text_config()._attn_implementation or ""
        refuse_packed(arguments, attention, arguments.get(self.cache_name))
        self.weights.refuse()
        if self.has_media(arguments) and not self.cached(arguments):
            refuse_without_types(self.model, arguments)


def of_ints(mask: Tensor) -> Tensor:
    """A mask of bools or floats as the one of ints that Transformers makes of it."""
    return mask if mask.dtype == torch.long else (mask != 0).long()


def check_columns(mask: Tensor | None, expected: int) -> None:
    if mask is not None and mask.shape[1] != expected:
        raise ValueError(
            f"attention_mask has {mask.shape[1]} columns where the prompts so far have {expected}"
        )


def put(embeds: Tensor, rows: Tensor, features: Tensor) -> Tensor:
    """Embeddings [B, m, D] with rows of the features [T, D] in their columns."""
    if not len(features):
        return embeds
    rows, features = rows.to(embeds.device), features.to(embeds.device, embeds.dtype)
    return torch.where((rows >= 0).unsqueeze(-1), features[rows.clamp(min=0)], embeds)
