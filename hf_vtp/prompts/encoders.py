"""What stands in for a model's encoder of images or videos, where tokens leave after the features."""

from __future__ import annotations

import copy
import functools
import inspect

from torch import Tensor

from .callbacks import by_name


class Encoder:
    """Stands in for `get_image_features`, or that of videos, of what puts features into the prompt.

    The model's own forward asks it and so puts the kept features in, in its own way. An object, so that a
    deep copy of the model gets one of its own.
    """

    def __init__(self, adapter, name: str):
        self.adapter, self.name = adapter, name
        self.__doc__ = getattr(type(adapter.inner), name).__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        inner = self.adapter.inner  # on demand, see Generate; `generate` goes by the names in it
        return inspect.signature(functools.partial(getattr(type(inner), self.name), inner))

    @property
    def waiting(self) -> list:
        """What the forward in progress is to get instead of what the encoder gives, call after call."""
        return self.adapter.call.serve.get(self.name, [])

    def __call__(self, *args, **kwargs):
        if self.waiting:
            return self.waiting.pop(0)
        original = functools.partial(getattr(type(self.adapter.inner), self.name), self.adapter.inner)
        output = original(*args, **kwargs)
        self.adapter.count(self.name, output, by_name(original, args, kwargs))
        return output


def in_form(output: object, rows: Tensor) -> object:
    """Rows [K, D] of all images together in the form of what an encoder returned."""
    if isinstance(output, Tensor):
        return rows.view(*[1] * (output.dim() - 2), *rows.shape)
    if isinstance(output, list | tuple):
        return type(output)([rows])
    output = copy.copy(output)
    output.pooler_output = in_form(output.pooler_output, rows)
    return output
