"""`model.config.vtp_config`: how a model remembers its pruning when it is saved, pushed and loaded again."""

from __future__ import annotations

import copy
import json
import os

from torch import nn

from .bounded_json import parse
from .config import VTPConfig
from .families.table import same_family

KEY = "vtp_config"
ABSENT = object()


class OwnConfig:
    """A config object of the pruned model's own, so that no model that shares the original sees `vtp_config`.

    It takes the original's place in every module of the model that holds it, since Transformers tells by
    identity which modules share a config. What is set on it meanwhile goes to the original in the end.
    """

    def __init__(self, model: nn.Module, pruning: VTPConfig):
        self.model = model
        self.values = pruning.to_dict()
        self.own = self.original = None
        self.before: dict = {}

    def attach(self) -> None:
        self.original = self.model.config
        if self.own is None:
            self.own = copy.copy(self.original)
        vars(self.own).clear()  # the same object again after a `with vtp(…)` in between
        vars(self.own).update(vars(self.original))
        setattr(self.own, KEY, copy.deepcopy(self.values))
        self.before = dict(vars(self.own))
        _exchange(self.model, self.own, self.original)

    def detach(self) -> None:
        now, kept = vars(self.own), vars(self.original)
        for name in self.before.keys() | now.keys():
            if name != KEY and now.get(name, ABSENT) is not self.before.get(name, ABSENT):
                if name in now:
                    kept[name] = now[name]
                else:
                    kept.pop(name, None)
        _exchange(self.model, self.original, self.own)
        if self.model.config is not self.original:
            vars(self.model.config).pop(KEY, None)  # the user's, put there since


def remembered(model: nn.Module) -> VTPConfig | None:
    """The config that a model was saved or is pruned with; raises ValueError for one that cannot be used.

    What a model was loaded with may have come from strangers: it has the bounds of a vtp_config.json.
    """
    values, source = getattr(model.config, KEY, None), f"{KEY} in the config of this model"
    if values is None:
        return None
    try:
        data = json.dumps(values).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{source} cannot be used: it is not what JSON can hold ({error})") from None
    return VTPConfig.from_dict(parse(data, source), source)


def forget(model: nn.Module) -> None:
    """Leave `vtp_config` out of the config of a model that was loaded with one.

    In a copy: another model may share the object and be pruned.
    """
    config = getattr(model, "config", None)
    if KEY in getattr(config, "__dict__", {}):
        own = copy.copy(config)
        delattr(own, KEY)
        _exchange(model, own, config)


def made_for(model: nn.Module, pruning: VTPConfig) -> VTPConfig:
    """The config with what it is for written down: family, encoder layers, the model's name on the Hub."""
    from .hub import is_repo_id

    base = pruning.base_model_name_or_path or getattr(model.config, "_name_or_path", None)
    return pruning.replace(
        model_type=model.config.model_type,
        num_layers=num_layers(model),
        base_model_name_or_path=base if base and is_repo_id(base) and not os.path.isdir(base) else None,
    )


def refuse_others(model: nn.Module, pruning: VTPConfig) -> None:
    """Raise ValueError for a config made for another family or another number of encoder layers."""
    own, made = model.config.model_type, pruning.model_type
    if made is not None and not same_family(made, own):
        raise ValueError(f"this config was made for model_type {made!r}, and this model's is {own!r}")
    layers = num_layers(model)
    if None not in (layers, pruning.num_layers) and layers != pruning.num_layers:
        raise ValueError(
            f"this config was made for a vision encoder of {pruning.num_layers} layers, and this one has "
            f"{layers}; to use it nonetheless, give num_layers=None and a layer"
        )


def num_layers(model: nn.Module) -> int | None:
    """How many layers the vision encoder has, by the model's config; None where that does not say."""
    vision = getattr(model.config, "vision_config", model.config)
    found = getattr(vision, "num_hidden_layers", None)
    return getattr(vision, "depth", None) if found is None else found


def _exchange(model: nn.Module, new: object, old: object) -> None:
    for module in model.modules():
        for name, value in vars(module).items():
            if value is old:
                vars(module)[name] = new
