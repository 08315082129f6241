"""Calls of a model's encoders of images and videos, recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..families.placeholder import PlaceholderModel, features_of


@dataclass
class Encoding:
    """One call of a model's encoder of images or videos."""

    pixels: str  # the argument with pixels that the call was for
    token: str  # attribute of the config with the placeholder's id
    encoder: str  # the method's name
    args: tuple
    kwargs: dict
    features: list[Tensor]  # [T, D] of each image, a row for each placeholder, NaN where a token was dropped
    deep: list[Tensor] = field(default_factory=list)  # [all T, D] for each of the first layers, of DeepStack


@contextmanager
def recording(adapter: PlaceholderModel) -> Iterator[list[Encoding]]:
    """The calls of a model's encoders inside a `with` block, in order."""
    inner, encoders, calls, running = adapter.inner, adapter.encoders, [], []

    def recorder(pixels: str, name: str) -> Callable:
        original = getattr(inner, name)

        @functools.wraps(original)
        def call(*args, **kwargs):
            running.append(name)
            try:
                output = original(*args, **kwargs)
            finally:
                running.pop()
            if running:  # videos may go through the encoder of images
                return output
            given = getattr(output, "deepstack_features", None) or ()  # an image each, or not split
            deep = [x if isinstance(x, Tensor) else torch.cat(list(x)) for x in given]
            found = (features_of(output), deep)
            calls.append(Encoding(pixels, adapter.media[pixels], name, args, kwargs, *found))
            return output

        return call

    own = {name: vars(inner)[name] for name in encoders.values() if name in vars(inner)}
    vars(inner).update({name: recorder(pixels, name) for pixels, name in encoders.items()})
    try:
        yield calls
    finally:
        for name in encoders.values():
            vars(inner).pop(name, None)
        vars(inner).update(own)
