"""Layers that attend to a window of columns: on a condensed prompt they count the columns of the full one."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_masks_for_generate

from .refusals import smallest_window

SLIDING = "sliding_attention"
KINDS = {SLIDING, "full_attention"}  # of layers; windows of others are counted otherwise
TAKES_PAIRS = ("eager", "sdpa")  # attention whose mask is one of pairs of columns


class Windows:
    """Pre-hook of a language model: masks of layers with a window are made of the full prompt's columns.

    In a condensed prompt a window of so many columns reaches farther back than in the full one, never less
    far: what Transformers' own mask and cache leave is enough, and only has to lose more.
    """

    def __init__(self, adapter):
        self.adapter = adapter

    def count_full_columns(self) -> bool:
        """Whether windows can be counted in full columns for this model as it is now."""
        model, config = self.adapter.model, self.adapter.model.config.get_text_config()
        return (
            self.adapter.language is not None
            and self.adapter.inner is not model  # whose class knows how image blocks and windows go together
            and KINDS.issuperset(getattr(config, "layer_types", None) or KINDS)
            and getattr(config, "attention_chunk_size", None) is None
            and config._attn_implementation in TAKES_PAIRS
        )

    def attach(self) -> list:
        if self.adapter.language is None or smallest_window(self.adapter.model) is None:
            return []
        return [self.adapter.language.register_forward_pre_hook(self, with_kwargs=True)]

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        memory, window = self.adapter.call.columns, smallest_window(self.adapter.model)
        if memory is None or not memory.dropped or window is None:
            return None
        embeds, cache = kwargs["inputs_embeds"], kwargs.get(self.adapter.cache_name)
        batch, n = embeds.shape[:2]
        past = 0 if cache is None else int(cache.get_seq_length())
        if past + n + memory.dropped <= window:
            return None
        masks = kwargs.get("attention_mask")
        if masks is None or (isinstance(masks, Tensor) and masks.dim() == 2):  # the model would do the same
            masks = create_masks_for_generate(module.config, embeds, masks, cache, None)
        length, offset = past + n, 0
        if cache is not None:
            layer = cache.is_sliding.index(True) if True in cache.is_sliding else 0
            length, offset = cache.get_mask_sizes(n, layer)
        memory = memory.rows(batch)
        query = memory.full(torch.arange(past, past + n, device=embeds.device))
        key = memory.full(torch.arange(offset, offset + length, device=embeds.device))
        new = slice(past - offset, past - offset + n)
        of_window = functools.partial(self.narrowed, query=query, key=key, new=new, window=window)
        if isinstance(masks, dict):
            masks = {kind: of_window(mask) if kind == SLIDING else mask for kind, mask in masks.items()}
        else:
            masks = of_window(masks)
        return args, {**kwargs, "attention_mask": masks}

    def narrowed(self, mask: Tensor | None, query: Tensor, key: Tensor, new: slice, window: int) -> Tensor:
        """A mask [B, 1, n, k] that leaves keys within a window of full columns only.

        Those of queries are `query` [B, n], of keys `key` [B, k], among which the queries' own are `new`.
        """
        query, key = query[:, None, :, None], key[:, None, None]
        if mask is None:  # stands for one that is causal and no more
            mask = key <= query
        seen = mask if mask.dtype == torch.bool else mask == 0
        stays = key > query - window
        if self.blocks_override:
            ahead = (seen & (key > query))[..., new]  # columns that come later are of the same image
            stays[..., new] |= ahead | ahead.mT
        if mask.dtype == torch.bool:
            return mask & stays
        return mask.masked_fill(~stays, torch.finfo(mask.dtype).min)

    @functools.cached_property
    def blocks_override(self) -> bool:
        """Whether an image's columns see each other beyond a window, in which releases differ."""
        model = self.adapter.model
        config = copy.deepcopy(model.config.get_text_config())
        config.sliding_window, config._attn_implementation = 2, "eager"
        make = getattr(model, "create_masks_for_generate", create_masks_for_generate)
        ones = torch.ones(1, 4, dtype=torch.long)
        types = {"token_type_ids": ones, "mm_token_type_ids": ones}
        masks = make(config, torch.zeros(1, 4, 1), ones, None, None, **types)
        mask = masks[SLIDING] if isinstance(masks, dict) else masks
        return bool(mask[0, 0, 3, 0] == 0)
