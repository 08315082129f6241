"""apply_vtp, remove_vtp, vtp, vtp_stats."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn

from . import canary
from .config import VTPConfig
from .families import Adapter, adapter_for
from .model_config import OwnConfig, forget, made_for, refuse_others, remembered
from .options import takes_fields
from .stats import VTPStats
from .towers.tower import Tower
from .wrappers import transformers_model, unwrap

ATTRIBUTE = "_vtp"  # where a pruned model keeps its adapter


@takes_fields(VTPConfig)
def apply_vtp(model: nn.Module, config: VTPConfig | str | os.PathLike | None = None, **fields) -> nn.Module:
    """Make `model` look at fewer image tokens from its next forward on; returns the model.

    Only this object changes. Applying again replaces. The config is copied: what is changed in it later has
    no effect until apply_vtp is called again.

    Image features of a pruned language model, asked for by `get_image_features`, have a row for every
    placeholder, NaN where its token was dropped in the tower. `forward` and `generate` never let such a row
    through. A class whose tower no row describes is pruned after its features, which then are all there; its
    first prompt is compared with the full one, which takes two forwards more and raises RuntimeError where
    they differ.

    Args:
        model: a model of Transformers, or a wrapper around one (torch.compile, PEFT, DDP).
        config: a VTPConfig, or a folder or a repository on the Hub to load one from; None for what the other
            arguments say. Without any argument it is what `model.config.vtp_config` says, of a model that was
            saved while it was pruned.
        {fields}

    The fields of VTPConfig override `config`; those that are left out stay as `config` has them.

    Raises ValueError or TypeError, before anything is changed, for what is no model (a pipeline, a module
    around one: the sentence names what to pass), a model family that is not supported, an unknown method or
    option, a ratio outside (0, 1], a layer where pruning has no effect or a config made for another family or
    number of layers; OSError for a repository that is missing, private or out of reach; RuntimeError on a
    Transformers that hf_vtp was not tested with and on which pruning goes wrong.
    """
    root = transformers_model(model)
    make = adapter_for(root)
    canary.check(root)
    config = _chosen(root, config, fields)
    refuse_others(root, config)
    adapter = make(root, config)
    adapter.own_config = OwnConfig(root, made_for(root, config))
    _refuse_overlap(root)
    _uninstall(applied(root))
    _install(adapter)
    return model


def remove_vtp(model: nn.Module) -> nn.Module:
    """Undo apply_vtp: outputs, hooks and attributes are those of a model never pruned. Returns the model.

    The config that a model was loaded with is forgotten too: it has no `vtp_config` afterwards.
    """
    root = transformers_model(model)
    take_off(root)
    forget(root)
    return model


@takes_fields(VTPConfig)
@contextmanager
def vtp(
    model: nn.Module, config: VTPConfig | str | os.PathLike | None = None, **fields
) -> Iterator[nn.Module]:
    """Prune inside a `with` block; whatever held before, pruned or not, holds again after it.

    Args:
        model, config: as in apply_vtp.
        {fields}

    Raises RuntimeError for a block that ends before one that began inside it; what held before both holds
    again after the last of them.
    """
    with _restored(model):
        yield apply_vtp(model, config, **fields)


@contextmanager
def unpruned(model: nn.Module) -> Iterator[nn.Module]:
    """No pruning at the start of a `with` block; whatever it applies, what held before holds after it."""
    with _restored(model):
        take_off(model)
        yield model


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """What held of a model before a `with` block holds again after it."""
    root = unwrap(model)
    block, blocks = Block(applied(root)), OPEN.setdefault(root, [])
    blocks.append(block)
    try:
        yield
    finally:
        place = blocks.index(block)
        blocks.remove(block)
        if place < len(blocks):
            blocks[place].before = block.before  # the one inside it now restores what held before both
            raise RuntimeError(
                "this vtp block ended before one that began inside it; end the blocks of a model in the "
                "opposite order, as nested with statements do"
            )
        if not blocks:
            del OPEN[root]
        take_off(root)
        if block.before is not None:
            _install(block.before)


@dataclass(eq=False)
class Block:
    """A `with` block in progress, and the pruning that held before it."""

    before: Adapter | None


OPEN: WeakKeyDictionary[nn.Module, list[Block]] = WeakKeyDictionary()  # by model, the innermost last


def take_off(model: nn.Module) -> None:
    """remove_vtp, but a config that the model was loaded with stays remembered."""
    _uninstall(applied(model))


def vtp_stats(model: nn.Module) -> VTPStats:
    """What the last forward kept. Raises RuntimeError if the model is not pruned or has not run since."""
    adapter = applied(transformers_model(model))
    if adapter is None:
        raise RuntimeError("this model is not pruned; call apply_vtp(model) first")
    return adapter.stats()


def applied(model: nn.Module) -> Adapter | None:
    """The adapter of a pruned model, None otherwise."""
    return vars(unwrap(model)).get(ATTRIBUTE)


def _chosen(root: nn.Module, config: VTPConfig | str | os.PathLike | None, fields: dict) -> VTPConfig:
    if config is None:
        config = (None if fields else remembered(root)) or VTPConfig()
    elif isinstance(config, str | os.PathLike):
        config = VTPConfig.from_pretrained(config)
    elif not isinstance(config, VTPConfig):
        raise TypeError(f"config must be a folder, a name on the Hub, a VTPConfig or None, not {config!r}")
    return config.replace(**fields)


def _install(adapter: Adapter) -> None:
    adapter.own_config.attach()
    adapter.attach()
    setattr(adapter.model, ATTRIBUTE, adapter)
    _forget_compiled()


def _uninstall(adapter: Adapter | None) -> None:
    if adapter is None:
        return
    adapter.detach()
    adapter.own_config.detach()
    delattr(adapter.model, ATTRIBUTE)
    _forget_compiled()


def _forget_compiled() -> None:
    """Have torch.compile trace again: it does not guard on hooks, and old code would ignore ours.

    Nothing narrower reaches a model that is compiled as a part of something else. Other compiled models keep
    their results and compile once more at their next call.
    """
    if "torch._dynamo" in sys.modules and torch._dynamo.utils.counters["stats"]["unique_graphs"]:
        torch.compiler.reset()


def _refuse_overlap(model: nn.Module) -> None:
    """A tower pruned on its own, or as a part of another model, cannot be pruned once more."""
    own = applied(model)
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            tower = getattr(hook, "__self__", None)
            if isinstance(tower, Tower) and (own is None or tower is not own.tower):
                raise ValueError("a part of this model is pruned already; call remove_vtp on that part first")
