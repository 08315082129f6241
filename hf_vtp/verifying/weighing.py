"""The full prompt's keys weighed as those of the pruned one are, where a config asks for language_weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..names import cache_name
from ..prompts.weights import weighed
from .case import Case, before


def log_sizes_of(case: Case) -> list[Tensor]:
    """Of each image what is added to the keys of its kept rows, [K]; zeros for prefix tokens."""
    stats = case.pruned.stats
    pairs = zip(case.kept(case.pruned), stats.stages[-1].sizes, strict=True)
    return [torch.nn.functional.pad(sizes.log(), (len(keep) - len(sizes), 0)) for keep, sizes in pairs]


@contextmanager
def weighing(case: Case, log_sizes: Tensor) -> Iterator[None]:
    """Inside a `with` block `log_sizes` [B, n] are added to the logits of the full prompt's keys."""
    if not case.config.language_weights:
        yield
        return
    cache = cache_name(case.inner)

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        given = kwargs["inputs_embeds"], kwargs.get("attention_mask"), kwargs.get(cache)
        masks = weighed(module.config, *given, log_sizes)
        return args, {**kwargs, "attention_mask": masks}

    with before(case.language, hook):
        yield
