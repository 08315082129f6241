"""The Transformers model inside what a caller has at hand, or a sentence that says what to pass instead."""

from __future__ import annotations

import os
from collections import deque

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from .config import VTPConfig
from .families.table import can_be_pruned, is_tower, model_type

TAKES = "pruning takes a Transformers model"


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside the wrappers of torch.compile, PEFT, DDP and the like.

    Raises TypeError with one sentence for what is no nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{TAKES}, not {described(model)}")
    while (inner := _inside(model)) is not model:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module:
    """What one wrapper holds; the module itself where it is none."""
    if "_orig_mod" in vars(model).get("_modules", {}):
        return model._orig_mod
    if hasattr(model, "get_base_model"):
        return model.get_base_model()
    if not hasattr(model, "config") and isinstance(getattr(model, "module", None), nn.Module):
        return model.module
    return model


def transformers_model(model: nn.Module) -> nn.Module:
    """`unwrap`, and nothing that merely holds a model, nor traced code, which no hook reaches.

    Raises TypeError for what is no nn.Module, ValueError for the rest; the sentence names what to pass.
    """
    root = unwrap(model)
    if isinstance(root, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise ValueError(
            f"{TAKES}, not traced code ({type(root).__name__}), which no hook reaches; prune the model it "
            "was made from, and trace that"
        )
    if is_model(root):
        return root
    # a model of unknown make may read its tower's tokens in a way that only its own adapter could know
    path, inner = held(model, towers=not isinstance(root, PreTrainedModel))
    own = model_type(root)
    if inner is None or (can_be_pruned(root) and own != model_type(inner)):
        return root
    name = "st" if isinstance(model, nn.Sequential) else "wrapper"
    raise ValueError(f"{TAKES}, not the {type(root).__name__} around one; pass {name}{path}")


def is_model(module: nn.Module) -> bool:
    """Whether it is a model of Transformers' own, or a subclass of one."""
    classes = type(module).__mro__
    return isinstance(module, PreTrainedModel) and any(
        "transformers.models." in c.__module__ for c in classes
    )


def held(model: nn.Module, towers: bool = True) -> tuple[str, nn.Module | None]:
    """The outermost model inside a module that can be pruned, and the attributes that lead to it.

    Models that cannot be pruned are not searched: they may read a tower's tokens in their own way.
    """
    queue: deque[tuple[str, nn.Module]] = deque([("", model)])
    while queue:
        path, module = queue.popleft()
        root = unwrap(module)
        if path and is_model(root):
            if can_be_pruned(root) and (towers or not is_tower(root)):
                return path, root
            continue
        listed = isinstance(module, nn.Sequential | nn.ModuleList)
        for name, child in module.named_children():
            queue.append((f"{path}[{name}]" if listed and name.isdigit() else f"{path}.{name}", child))
    return "", None


def described(thing: object) -> str:
    """What is no nn.Module in words, and where a model is to be had from it."""
    kind = type(thing).__name__
    owner = getattr(getattr(thing, "_torchdynamo_orig_callable", thing), "__self__", None)
    if thing is None:
        return "None"
    if isinstance(thing, type):
        return f"the class {thing.__name__}; make a model of it first, with its from_pretrained"
    if isinstance(thing, str | os.PathLike):
        return f"its name {str(thing)[:80]!r}; load it first, with from_pretrained"
    if isinstance(thing, PretrainedConfig | VTPConfig):
        return f"a config ({kind}); the model comes first"
    if isinstance(thing, list | tuple | set | dict):
        return f"a {kind}; prune each model by itself"
    if callable(thing) and isinstance(owner, nn.Module):
        return f"a function of one ({kind}); pass the {type(owner).__name__} it belongs to"
    attributes = sorted(getattr(thing, "__dict__", {}).items(), key=lambda item: item[0] != "model")
    for name, value in attributes:
        if isinstance(value, nn.Module):
            path = "" if is_model(unwrap(value)) else held(value)[0]
            if path or can_be_pruned(unwrap(value)):
                holder = "pipe" if "Pipeline" in kind else "object"
                return f"an object of type {kind}; pass {holder}.{name}{path}"
    return f"an object of type {kind}"
