"""Calls of a model's encoders of images and videos, recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..families.after_features import features_of
from ..families.placeholder import PlaceholderModel


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
def recording(adapter: PlaceholderModel, inputs: dict, served: list[Tensor]) -> Iterator[list[Encoding]]:
    """The calls of a model's encoders inside a `with` block, in order.

    What a forward is handed in place of an encoder's features goes to `served`.
    """
    inner, encoders, calls, running = adapter.inner, adapter.encoders, [], []
    media = [pixels for pixels in encoders if inputs.get(pixels) is not None]

    def recorder(name: str) -> Callable:
        original = getattr(inner, name)
        order = [pixels for pixels in media if encoders[pixels] == name]

        @functools.wraps(original)
        def call(*args, **kwargs):
            replaced = bool(getattr(original, "waiting", ()))  # the forward asks, after the encoder was run
            running.append(name)
            try:
                output = original(*args, **kwargs)
            finally:
                running.pop()
            if running:  # videos may go through the encoder of images
                return output
            if replaced:
                served.append(torch.cat(features_of(output)))
                return output
            pixels = order.pop(0) if len(order) > 1 else order[0]
            rows = adapter.images_of(pixels, output, inputs)[0]
            given = getattr(output, "deepstack_features", None) or ()  # an image each, or not split
            deep = [x if isinstance(x, Tensor) else torch.cat(list(x)) for x in given]
            calls.append(Encoding(pixels, adapter.media[pixels], name, args, kwargs, rows, deep))
            return output

        return call

    own = {name: vars(inner)[name] for name in encoders.values() if name in vars(inner)}
    vars(inner).update({name: recorder(name) for name in encoders.values()})
    try:
        yield calls
    finally:
        for name in encoders.values():
            vars(inner).pop(name, None)
        vars(inner).update(own)
