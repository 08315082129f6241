"""Names that differ between releases of Transformers: the one place that reads them from signatures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable

import torch
import transformers
from torch import nn
from transformers.utils import ModelOutput

PIXELS = "pixel_values_images"  # of Video-LLaVA, whose image processor returns it still
CACHE = ("past_key_values", "cache")  # the argument and the field of the key-value cache, oldest name first


def parameters(function: Callable) -> list[str]:
    """Names of a function's parameters, those below a decorator's."""
    return list(inspect.signature(function).parameters)


def cache_name(module: nn.Module) -> str:
    """What a module's forward calls its cache; raises ValueError where it has none under a known name."""
    names = parameters(type(module).forward)
    found = [name for name in CACHE if name in names]
    if not found:
        raise ValueError(
            f"{type(module).__name__}.forward of Transformers {transformers.__version__} takes no cache by "
            f"a name that hf_vtp knows ({', '.join(CACHE)}); use a release that hf_vtp was tested with"
        )
    return found[-1]


def with_cache_named(name: str, arguments: dict) -> dict:
    """Keyword arguments in which a cache given under an older name goes by `name`, as Transformers has it."""
    older = [old for old in CACHE[: CACHE.index(name)] if old in arguments]
    if not older:
        return arguments
    given = [arguments[key] for key in (*older, name) if key in arguments]
    return {**{k: v for k, v in arguments.items() if k not in older}, name: given[-1]}


def with_pixels_named(arguments: dict) -> dict:
    """Keyword arguments in which images go by the name that all models but one have had from the start."""
    return {"pixel_values" if name == PIXELS else name: value for name, value in arguments.items()}


def cache_in(output: object) -> object | None:
    """The cache in what a model or `generate` returned, None if it returned none."""
    return next((getattr(output, name) for name in reversed(CACHE) if name in field_names(output)), None)


def media_fields(output: object, media: dict[str, ModelOutput]) -> dict[str, object]:
    """The fields of a model's output that tell of its media, by "image" and "video"."""
    names = field_names(output)
    fields = {f"{medium}_outputs": media[medium] for medium in media if f"{medium}_outputs" in names}
    for medium in media:
        if f"{medium}_hidden_states" in names:  # up to 5.23
            fields[f"{medium}_hidden_states"] = torch.cat(list(media[medium].pooler_output))
    return fields


def field_names(output: object) -> Iterable[str]:
    """The fields an output can have, given or not."""
    return getattr(type(output), "__dataclass_fields__", ())


class Argument:
    """An argument of a module's forward by name, whether callers give it by position or by keyword."""

    def __init__(self, module: nn.Module, name: str):
        names = parameters(type(module).forward)[1:]
        self.name = name
        self.place = names.index(name) if name in names else None

    @property
    def taken(self) -> bool:
        """Whether the forward has such an argument."""
        return self.place is not None

    def of(self, args: tuple, kwargs: dict) -> object:
        """Its value in a call; None if it is not given."""
        if self.name in kwargs or self.place is None:
            return kwargs.get(self.name)
        return args[self.place] if self.place < len(args) else None

    def put(self, value: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The call with another value."""
        if self.place is not None and self.place < len(args):
            return (*args[: self.place], value, *args[self.place + 1 :]), kwargs
        return args, {**kwargs, self.name: value}


def takes_any_keyword(module: nn.Module) -> bool:
    """Whether a module's forward takes keyword arguments of any name."""
    kinds = [p.kind for p in inspect.signature(type(module).forward).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def transformers_class(model: nn.Module) -> type:
    """The class of a model that is Transformers' own, below subclasses made by users and wrappers."""
    own = (kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers."))
    return next(own, type(model))
