"""Kept image tokens that count in the language model's attention for as many as they absorbed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.cache_utils import Cache
from transformers.masking_utils import create_masks_for_generate

from ..names import parameters
from ..pruning.run import Run
from ..pruning.stage import weighing_mergers
from .encoded import Encoded
from .refusals import steps_over_masks
from .windows import KINDS, SLIDING, TAKES_PAIRS


class Weights:
    """Pre-hook of a language model: log(size) is added to the attention logits of each kept token's key.

    Attention with log(s) on a key is that with the key there s times (ToMe, arXiv:2210.09461).
    """

    def __init__(self, adapter):
        self.adapter = adapter

    @property
    def wanted(self) -> bool:
        return self.adapter.config.language_weights

    def check(self) -> None:
        """Raise ValueError for a model, or a merger, that gives or takes no weights."""
        adapter = self.adapter
        if not self.wanted:
            return
        model, name, language = adapter.model, type(adapter.model).__name__, adapter.language
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"language_weights is for decoders that read image tokens; of {name} an encoder reads them"
            )
        if not takes_pairs(model, language):
            raise ValueError(
                "language_weights needs a language model whose layers all add a mask of pairs of columns to "
                f"their attention, which that of {name} does not"
            )
        if adapter.row.tiles and not adapter.after_features:
            raise ValueError(
                f"language_weights needs to know the size of each row of features, and those of {name} are "
                "laid out anew after the projector; choose a model of one image a picture"
            )
        if not adapter.tower.weighs:
            merger = adapter.tower.configs[max(adapter.tower.stages)].part("merger")[0]
            raise ValueError(
                f"language_weights needs a merger whose groups weigh by their sizes, and {merger!r} is none; "
                f"choose one of {weighing_mergers()}"
            )

    def refuse(self) -> None:
        """Raise NotImplementedError for attention that takes no mask of pairs."""
        attention = self.adapter.model.config.get_text_config()._attn_implementation
        if self.wanted and attention not in TAKES_PAIRS:
            raise NotImplementedError(
                f"language_weights needs {' or '.join(TAKES_PAIRS)} attention in the language model, not "
                f"{attention}; call model.set_attn_implementation('sdpa')"
            )

    def attach(self) -> list:
        if not self.wanted:
            return []
        return [self.adapter.language.register_forward_pre_hook(self, with_kwargs=True)]

    def sized(self, encoded: Encoded, arguments: dict) -> Encoded:
        """The same with the sizes of what the tower kept in the forward that just ended."""
        if not self.wanted:
            return encoded
        prefix = 0 if self.adapter.after_features else self.adapter.prefix_rows(arguments)
        counts = [len(rows) for rows in encoded.output.pooler_output]
        return replace(encoded, sizes=sizes_of(self.adapter.tower.call.last, counts, prefix))

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        call, embeds = self.adapter.call, kwargs.get("inputs_embeds")
        if call.columns is None or call.columns.log_sizes is None or embeds is None:
            return None
        call.weighed = True
        log_sizes = call.columns.rows(len(embeds)).log_sizes
        cache = kwargs.get(self.adapter.cache_name)
        masks = weighed(module.config, embeds, kwargs.get("attention_mask"), cache, log_sizes)
        return args, {**kwargs, "attention_mask": masks}

    def ended(self) -> None:
        """Raise RuntimeError if a forward went on without the weights it was to get."""
        call = self.adapter.call
        if call.columns is not None and call.columns.log_sizes is not None and not call.weighed:
            raise RuntimeError(
                f"the forward of {type(self.adapter.inner).__name__} hands its language model no embeddings, "
                "so image tokens cannot be weighed; leave out language_weights"
            )


def takes_pairs(model: nn.Module, language: nn.Module | None) -> bool:
    """Whether all layers of a model's causal language model add a mask of pairs to their attention logits."""
    config = model.config.get_text_config()
    return (
        language is not None
        and getattr(language, "_supports_attention_backend", False)  # others may take masks for bools
        and {"attention_mask", "inputs_embeds"}.issubset(parameters(type(language).forward))
        and KINDS.issuperset(getattr(config, "layer_types", None) or KINDS)
        and getattr(config, "attention_chunk_size", None) is None
        and getattr(config, "is_causal", True)
        and not steps_over_masks(config)
    )


def sizes_of(run: Run, counts: list[int], prefix: int) -> Tensor | None:
    """How many tokens each kept one stands for, [K] of all images of a tower's forward; None = one each.

    `counts` are the kept rows of each image, the first `prefix` of which are of prefix tokens.
    """
    groups = run.stages[max(run.stages)]
    known = next((group.sizes for group in groups if group.sizes is not None), None)
    if known is None:
        return None
    parts = [known.new_ones(count) for count in counts]
    for group in groups:
        for b, image in enumerate(group.images if group.sizes is not None else ()):
            parts[image][prefix:] = group.sizes[b, : counts[image] - prefix]  # raises for other counts
    return torch.cat(parts)


def log_sizes(encoded: Iterable[Encoded], rows: Tensor) -> Tensor | None:
    """Logarithms of the sizes in columns that hold `rows` [B, m] of features, 0 for text; None = all 0."""
    encoded = list(encoded)
    if all(part.sizes is None for part in encoded):
        return None
    kept = [sum(map(len, part.output.pooler_output)) for part in encoded]
    sizes = [
        torch.ones(n) if part.sizes is None else part.sizes for part, n in zip(encoded, kept, strict=True)
    ]
    logs = torch.cat([x.to(rows.device, torch.float32) for x in sizes]).log()
    if not bool(logs.any()):
        return None
    return torch.where(rows >= 0, logs[rows.clamp(min=0)], 0.0)


def weighed(
    config: object, embeds: Tensor, masks: Tensor | dict | None, cache: Cache | None, log_sizes: Tensor
) -> Tensor | dict[str, Tensor]:
    """A language model's masks, with what is added to the logits of its keys.

    `log_sizes` [B, m] are of the first m columns, those in the cache included; later ones get 0. `embeds`
    [B, n, D] are the model's input, in whose dtype the masks [B, 1, n, k] come.
    """
    if masks is None or (isinstance(masks, Tensor) and masks.dim() == 2):  # the model would do the same
        masks = create_masks_for_generate(config, embeds, masks, cache, None)
    n, log_sizes = embeds.shape[1], log_sizes.to(embeds.device, embeds.dtype)

    def add(mask: Tensor | None, sliding: bool) -> Tensor:
        length, offset = n, 0
        if cache is not None:
            kinds = cache.is_sliding
            length, offset = cache.get_mask_sizes(n, kinds.index(sliding) if sliding in kinds else 0)
        length = length if mask is None else mask.shape[-1]
        bias = log_sizes[:, offset : offset + length]
        bias = pad(bias, (0, length - bias.shape[1]))[:, None, None]  # [B, 1, 1, k]
        if mask is None:  # stands for one that is causal and no more
            past = 0 if cache is None else int(cache.get_seq_length())
            key, query = (torch.arange(count, device=bias.device) for count in (length, n))
            mask = key + offset <= (query + past)[:, None]
        if mask.dtype == torch.bool:
            return torch.where(mask, bias, torch.finfo(bias.dtype).min)
        return mask + bias

    if isinstance(masks, dict):
        return {kind: add(mask, kind == SLIDING) for kind, mask in masks.items()}
    return add(masks, cache is not None and all(cache.is_sliding))
