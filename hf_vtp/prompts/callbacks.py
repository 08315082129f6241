"""`generate` on a condensed prompt, while what the caller hands in or gets back speaks of the full one."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable

import torch
from torch import Tensor


class Generate:
    """Stands in for a model's `generate`: an object, so that a deep copy of the model gets one of its own."""

    def __init__(self, adapter):
        self.adapter = adapter
        self.__doc__ = type(adapter.model).generate.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        model = self.adapter.model  # on demand: a signature that is kept cannot be pickled with the model
        return inspect.signature(functools.partial(type(model).generate, model))

    def __call__(self, *args, **kwargs):
        model = self.adapter.model
        original = functools.partial(type(model).generate, model)
        return self.adapter.generate(original, by_name(original, args, kwargs))


def by_name(function: Callable, args: tuple, kwargs: dict) -> dict:
    """Positional and keyword arguments of a call, all by name; raises TypeError as the call itself would."""
    signature = inspect.signature(function)
    arguments = dict(signature.bind(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name, {})
    return arguments


MERGE = "_merge_criteria_processor_list"  # where `generate` adds the caller's to the lists it makes itself
BY_CONTENT = {  # of the processors that `generate` makes itself, those that read which ids the prompt holds
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
    "SequenceBiasLogitsProcessor",
}


class MergeLists:
    """Stands in for that method: the caller's are shown full ids from there on, and so are those BY_CONTENT.

    Not before, since a processor or criterion of the caller's replaces the default of its class. Others that
    `generate` makes count columns, and were given the condensed prompt's length.
    """

    def __init__(self, adapter):
        self.adapter = adapter

    def __call__(self, default_list: list, custom_list: list) -> list:
        model, call = self.adapter.model, self.adapter.call
        merged = getattr(type(model), MERGE)(model, default_list, custom_list)
        if call.full is None:
            return merged
        call.merged = True
        own = {id(item) for item in custom_list}
        full = [id(item) in own or type(item).__name__ in BY_CONTENT for item in merged]
        pairs = zip(merged, full, strict=True)
        return type(merged)(call.full.show(item) if shown else item for item, shown in pairs)


class FullIds:
    """Turns the ids that `generate` works with into those the caller knows."""

    def __init__(self, prompt: Tensor, condensed_length: int, mask: Tensor):
        self.prompt = prompt  # [B, n]
        self.padding = (mask != 0).int().argmax(dim=1)  # [B] columns before the first token of the prompt
        self.condensed_length = condensed_length
        self.dropped = prompt.shape[1] - condensed_length

    def __call__(self, ids: Tensor) -> Tensor:
        """[B · beams, m + new] to [B · beams, n + new]"""
        prompt = self.prompt.to(ids.device).repeat_interleave(ids.shape[0] // self.prompt.shape[0], dim=0)
        return torch.cat([prompt, ids[:, self.condensed_length :]], dim=-1)

    def show(self, item: Callable) -> Callable:
        """A logits processor or a stopping criterion that gets full ids from now on."""
        ignored = getattr(item, "prompt_ignore_length", None)
        if isinstance(ignored, Tensor):  # the padding that `generate` found in the condensed prompt
            item = copy.copy(item)
            item.prompt_ignore_length = self.padding.repeat_interleave(len(ignored) // len(self.padding))
        return WithFullIds(item, self)

    def row(self, b: int, ids: Tensor) -> Tensor:
        """[m + new] to [n + new] for a sequence of the batch's row b"""
        return torch.cat([self.prompt[b].to(ids.device), ids[self.condensed_length :]])


class WithFullIds:
    """A caller's logits processor or stopping criterion, shown full ids; passes for it in everything else."""

    def __init__(self, wrapped: Callable, full: FullIds):
        self.wrapped, self.full = wrapped, full

    @property
    def __class__(self) -> type:
        return type(self.wrapped)

    @property
    def __call__(self) -> Callable:
        @functools.wraps(self.wrapped.__call__)  # `generate` hands over what the signature asks for
        def call(input_ids: Tensor, scores: Tensor, **kwargs):
            return self.wrapped(self.full(input_ids), scores, **kwargs)

        return call

    def __getattr__(self, name: str):
        if name in ("wrapped", "full"):  # not there yet: a copy in the making
            raise AttributeError(name)
        value = getattr(self.wrapped, name)
        return value - self.full.dropped if name == "max_length" else value  # in ids that `generate` counts


class FullIdsStreamer:
    """A caller's streamer, whose first value is the full prompt."""

    def __init__(self, streamer, full: FullIds):
        self.streamer, self.full, self.started = streamer, full, False

    def put(self, value: Tensor) -> None:
        self.streamer.put(value if self.started else self.full(value))
        self.started = True

    def end(self) -> None:
        self.streamer.end()


def setting(model, kwargs: dict, name: str):
    """What `generate` goes by: the keyword argument, else the caller's GenerationConfig, else the model's."""
    configs = (kwargs.get("generation_config"), model.generation_config)
    values = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
    return next((value for value in values if value is not None), None)


def speak_full(kwargs: dict, full: FullIds) -> dict:
    """`generate`'s keyword arguments whose streamer and prefix function are shown full ids."""
    kwargs = dict(kwargs)
    if kwargs.get("streamer") is not None:
        kwargs["streamer"] = FullIdsStreamer(kwargs["streamer"], full)
    if kwargs.get("prefix_allowed_tokens_fn") is not None:
        allowed = kwargs["prefix_allowed_tokens_fn"]
        kwargs["prefix_allowed_tokens_fn"] = lambda b, ids: allowed(b, full.row(b, ids))
    return kwargs


def shorten(kwargs: dict, defaults, dropped: int) -> dict:
    """`generate`'s keyword arguments with lengths that count the prompt reduced by the dropped columns."""
    kwargs = dict(kwargs)
    config = kwargs.get("generation_config")
    if config is not None:
        config = kwargs["generation_config"] = copy.deepcopy(config)
    for name in ("max_length", "min_length"):
        if kwargs.get(name) is not None:
            kwargs[name] = max(kwargs[name] - dropped, 0)
        elif getattr(config, name, None) is not None:
            setattr(config, name, max(getattr(config, name) - dropped, 0))
        elif getattr(defaults, name, None) is not None:
            kwargs[name] = max(getattr(defaults, name) - dropped, 0)
    return kwargs


def with_full_sequences(output, full: FullIds):
    """What `generate` returned, its sequences with the full prompt in front."""
    if isinstance(output, Tensor):
        return full(output)
    output.sequences = full(output.sequences)
    return output
