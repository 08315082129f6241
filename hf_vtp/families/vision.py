"""Vision towers without a language model: alone, beside a text tower, or under a classifier."""

from __future__ import annotations

import sys

import torch
from torch import nn

from ..config import OUTPUT, VTPConfig
from ..names import transformers_class
from ..towers.tower import Tower
from .base import Adapter
from .table import find_tower, tower_row

# Heads that read [CLS], a pooled token or the mean over tokens. Others may need a token for each patch.
HEADS = ("Model", "ModelWithProjection", "ForImageClassification", "ForImageClassificationWithTeacher")


class VisionModel(Adapter):
    """Tokens leave inside the vision encoder; whatever stands beside it is untouched."""

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        name = transformers_class(model).__name__
        module = find_tower(model)
        if not name.endswith(HEADS) or module is None:
            raise ValueError(
                f"{name} cannot be pruned: its head may need a token for every patch; choose a class that "
                f"ends in {' or '.join(HEADS)}"
            )
        if config.layer == OUTPUT:
            raise ValueError(
                f"layer 'output' is for models with a language model; give {name} an encoder layer"
            )
        if config.language_weights:
            raise ValueError(f"language_weights is for models with a language model, which {name} is not")
        row = tower_row(module)
        depth = row.depth(module)
        tower = row.make(module, config, config.stages(depth))
        tower.pooled = True
        return tower

    def attach(self) -> None:
        super().attach()
        if self.model is self.tower.module:
            self.tower.handles.append(self.model.register_forward_pre_hook(refuse_callers))
        if hasattr(self.model, "classifier"):
            handle = self.tower.module.register_forward_hook(self.weigh_patches)
            self.tower.handles.append(handle)

    def weigh_patches(self, module: nn.Module, args: tuple, output):
        """A classifier may take the mean over patches: scale each row to count for its whole group."""
        output.last_hidden_state = self.tower.weighed(self.tower.call.last, output.last_hidden_state)
        return output


def refuse_callers(module: nn.Module, args: tuple) -> None:
    """Raise ValueError if a model with placeholders runs this tower, which is pruned without it."""
    frame = None if torch.compiler.is_compiling() else sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        config = getattr(caller, "config", None) if isinstance(caller, nn.Module) else None
        if any(getattr(config, name, None) is not None for name in ("image_token_id", "image_token_index")):
            raise ValueError(
                f"the vision tower alone is pruned, while {type(caller).__name__} needs a feature for every "
                "placeholder; call remove_vtp(tower), then apply_vtp(model) on the whole model"
            )
        frame = frame.f_back
