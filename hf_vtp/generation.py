"""`generate` on a condensed prompt, while what the caller hands in or gets back speaks of the full one."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList


class Generate:
    """Stands in for a model's `generate`: an object, so that a deep copy of the model gets one of its own."""

    def __init__(self, adapter):
        self.adapter = adapter
        self.__doc__ = type(adapter.model).generate.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        model = self.adapter.model  # on demand: a signature that is kept cannot be pickled with the model
        return inspect.signature(functools.partial(type(model).generate, model))

    def __call__(self, inputs: Tensor | None = None, *args, **kwargs):
        model = self.adapter.model
        return self.adapter.generate(functools.partial(type(model).generate, model), inputs, *args, **kwargs)


class FullIds:
    """Turns the ids that `generate` works with into those the caller knows."""

    def __init__(self, prompt: Tensor, condensed_length: int):
        self.prompt = prompt  # [B, n]
        self.condensed_length = condensed_length

    def __call__(self, ids: Tensor) -> Tensor:
        """[B · beams, m + new] to [B · beams, n + new]"""
        prompt = self.prompt.to(ids.device).repeat_interleave(ids.shape[0] // self.prompt.shape[0], dim=0)
        return torch.cat([prompt, ids[:, self.condensed_length :]], dim=-1)

    def row(self, b: int, ids: Tensor) -> Tensor:
        """[m + new] to [n + new] for a sequence of the batch's row b"""
        return torch.cat([self.prompt[b].to(ids.device), ids[self.condensed_length :]])


class FullIdsProcessor(LogitsProcessor):
    """A caller's logits processor, shown full ids."""

    def __init__(self, processor: Callable, full: FullIds):
        self.processor, self.full = processor, full

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.processor(self.full(input_ids), scores)


class FullIdsCriterion(StoppingCriteria):
    """A caller's stopping criterion, shown full ids."""

    def __init__(self, criterion: Callable, full: FullIds):
        self.criterion, self.full = criterion, full

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs):
        return self.criterion(self.full(input_ids), scores, **kwargs)


class FullIdsStreamer:
    """A caller's streamer, whose first value is the full prompt."""

    def __init__(self, streamer, full: FullIds):
        self.streamer, self.full, self.started = streamer, full, False

    def put(self, value: Tensor) -> None:
        self.streamer.put(value if self.started else self.full(value))
        self.started = True

    def end(self) -> None:
        self.streamer.end()


def speak_full(kwargs: dict, full: FullIds) -> dict:
    """`generate`'s keyword arguments with every callback of the caller shown full ids."""
    kwargs = dict(kwargs)
    if kwargs.get("logits_processor"):
        wrapped = [FullIdsProcessor(p, full) for p in kwargs["logits_processor"]]
        kwargs["logits_processor"] = LogitsProcessorList(wrapped)
    if kwargs.get("stopping_criteria"):
        wrapped = [FullIdsCriterion(c, full) for c in kwargs["stopping_criteria"]]
        kwargs["stopping_criteria"] = StoppingCriteriaList(wrapped)
    if kwargs.get("streamer") is not None:
        kwargs["streamer"] = FullIdsStreamer(kwargs["streamer"], full)
    if kwargs.get("prefix_allowed_tokens_fn") is not None:
        allowed = kwargs["prefix_allowed_tokens_fn"]
        kwargs["prefix_allowed_tokens_fn"] = lambda b, ids: allowed(b, full.row(b, ids))
    return kwargs


def shorten(kwargs: dict, defaults, dropped: int) -> dict:
    """`generate`'s keyword arguments with lengths that count the prompt reduced by the columns that left."""
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
