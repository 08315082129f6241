"""A model pruned as a case of a table says: for a while, or until the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from ..apply import apply_vtp, take_off, vtp
from ..config import VTPConfig
from .bench.cli import UsageError


def prune(model: nn.Module, config: VTPConfig | None) -> nn.Module:
    """Prune the model so until the next call; None is no pruning. Returns the model."""
    if config is not None:
        return apply_vtp(model, config)
    take_off(model)
    return model


@contextmanager
def pruned_as(model: nn.Module, config: VTPConfig | None) -> Iterator[nn.Module]:
    """The model pruned so inside a `with` block, None: as it is; what held before holds after it."""
    if config is None:
        yield model
        return
    with vtp(model, config):
        yield model


def refuse_impossible(model: nn.Module, configs: Iterable[VTPConfig | None]) -> None:
    """Raise UsageError if the model cannot be pruned as one of the configs says."""
    for config in configs:
        try:
            with pruned_as(model, config):
                pass
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UsageError(str(error)) from None
