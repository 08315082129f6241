"""The tables of model families and towers, and what an adapter is."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..config import VTPConfig
from ..stats import VTPStats
from ..towers.tower import Tower

ADAPTERS: dict[str, type[Adapter]] = {}  # by the root model's config.model_type
TOWERS: dict[str, type[Tower]] = {}  # by the vision tower's config.model_type


class Adapter:
    """One pruned model of a family: knows where its tower is and what follows it.

    The constructor validates and changes nothing; `attach` puts the hooks on, `detach` takes them off.
    """

    reads_text = False  # whether images come with a prompt of their own
    own_config: object  # the model's while it is pruned, see hf_vtp/model_config.py; apply_vtp sets it

    def __init__(self, model: nn.Module, config: VTPConfig):
        self.model = model
        self.config = config
        self.tower = self.make_tower(model, config)
        if "text" in self.tower.needs and not self.reads_text:
            raise ValueError(
                f"method {config.method!r} compares image tokens with the text of a prompt, which "
                f"{type(model).__name__} does not have; choose one that needs no text, see list_methods()"
            )

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        """The tower with its stages; raises ValueError for a layer where pruning has no effect."""
        raise NotImplementedError(f"{type(self).__name__} must make its tower")

    def attach(self) -> None:
        self.tower.attach()

    def detach(self) -> None:
        self.tower.detach()

    def stats(self) -> VTPStats:
        return self.tower.stats()


def register_adapter(*model_types: str) -> Callable[[type[Adapter]], type[Adapter]]:
    """Class decorator: the adapter serves models whose `config.model_type` is one of these."""
    return _register(ADAPTERS, model_types)


def register_tower(*model_types: str) -> Callable[[type[Tower]], type[Tower]]:
    """Class decorator: the tower serves vision models whose `config.model_type` is one of these."""
    return _register(TOWERS, model_types)


def _register(table: dict, model_types: tuple[str, ...]) -> Callable[[type], type]:
    def add(cls: type) -> type:
        table.update(dict.fromkeys(model_types, cls))
        return cls

    return add


def adapter_for(model: nn.Module) -> type[Adapter]:
    """The adapter class of a model; raises ValueError that lists the families there are."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type not in ADAPTERS:
        raise ValueError(
            f"{type(model).__name__} (model_type {model_type!r}) cannot be pruned; choose a model whose "
            f"model_type is one of {sorted(ADAPTERS)}"
        )
    return ADAPTERS[model_type]


def tower_for(module: nn.Module) -> type[Tower]:
    """The tower class of a vision module; raises ValueError that lists the towers there are."""
    model_type = module.config.model_type
    if model_type not in TOWERS:
        raise ValueError(
            f"a vision tower of model_type {model_type!r} cannot be pruned; choose from {sorted(TOWERS)}"
        )
    return TOWERS[model_type]
