"""A vision-language model for a benchmark: its parts, and one call of generate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache

from ...families.placeholder import merging
from ...families.table import FAMILIES, FamilyRow
from ...names import cache_in
from ...towers.rows import find
from .. import models
from . import cli
from .cli import UsageError

INSTEAD = "give --weights random for a geometry by name, or a local folder with --model"
PROJECTORS = "merger|multi_modal_projector|connector|aligner|vision_projection"  # where no row says


def config_of(name: str, weights: str) -> PreTrainedConfig:
    """The config of a vision-language model that can be pruned; raises UsageError for any other."""
    config = models.load_config(name, weights, INSTEAD)
    models.refuse_unprunable(name, config, answers=True)
    return config


def load_model(
    name: str,
    config: PreTrainedConfig,
    weights: str,
    dtype: torch.dtype,
    attention: str | None,
    device: torch.device,
) -> PreTrainedModel:
    """A model in eval mode on `device`, which generates greedily and never ends by itself."""
    model = models.load_model(name, config=config, weights=weights, dtype=dtype, device=device)
    if attention:
        cli.set_attention(model, attention, dtype, device)
    if not model.can_generate():
        raise UsageError(f"{name} does not generate text; choose a model with a language head")
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)  # no end: all cases alike
    return model


def parts(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules that are measured one by one, without those that a model does not have apart.

    Where a projector lies inside the tower, as Qwen's merger does, the tower's share is what lies around it.
    """
    inner, row = merging(model), FAMILIES.get(model.config.model_type, FamilyRow())
    tower, language = model.get_encoder("image"), model.get_decoder()
    projector = find(inner, row.projector) if row.projector else None
    if projector is None:
        projector = next((m for at in (tower, inner) if (m := find(at, PROJECTORS)) is not None), None)
    found = {
        "tower": tower,
        "projector": projector,
        "language": language,
        "head": model.get_output_embeddings(),
    }
    whole = (None, model, inner)
    return {name: module for name, module in found.items() if all(module is not one for one in whole)}


def generate(model: PreTrainedModel, inputs: dict, new_tokens: int) -> Cache:
    """The cache after so many new tokens, all rows having as many: prompt and all of them but the last."""
    return cache_in(model.generate(**inputs, max_new_tokens=new_tokens, return_dict_in_generate=True))


def cache_bytes(cache: Cache) -> int:
    """Bytes of all that the layers of a cache hold, keys and values or recurrent states."""
    held = [x for layer in cache.layers for x in vars(layer).values() if isinstance(x, Tensor)]
    return sum(x.numel() * x.element_size() for x in held)
