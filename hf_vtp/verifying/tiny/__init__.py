"""A random model of two layers of every family, with inputs for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import cells, others, packed, row_wise, towers

RECIPES = {**towers.RECIPES, **row_wise.RECIPES, **cells.RECIPES, **packed.RECIPES, **others.RECIPES}
# Beside weights of two axes and more. Without the norm's, all features of Florence-2 would be equally long.
FILLED = ("class_embedding", "image_newline", "high_res_vision_alpha", "image_proj_norm.weight")


def tiny(kind: type[nn.Module], config: object) -> tuple[nn.Module, dict[str, Tensor]] | None:
    """A tiny model of a class, on the CPU and in eval mode, and a batch for it.

    `config` is that of a model of full size, whose family and language model are taken over. None for a
    family or a vision tower without a recipe.
    """
    recipe = RECIPES.get(config.model_type)
    if recipe is None:
        return None
    numbers = torch.Generator().manual_seed(0)
    made = recipe(config, numbers)
    if made is None:
        return None
    changes, inputs = made
    model = kind(type(config)(**changes)).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 or name.endswith(FILLED):
                # sharp attention: a uniform one would hide a wrong mask
                deviation = 1.0 if "embed" in name or weight.dim() < 2 else 2.0 * weight[0].numel() ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=numbers) * deviation)
    return model, inputs
