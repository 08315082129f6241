"""What DeepStack adds to the columns of images, for prompts that are given as embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .case import Case, Seen, before

NEVER_SEEN = 7.0  # in the columns that are masked: one that is seen is loud


@contextmanager
def deepstack(case: Case, seen: Seen) -> Iterator[None]:
    """Inside a `with` block the language model gets what the encoders of a forward gave for its layers.

    It is added where a prompt of embeddings is as long as that of the case, with columns of padding in front.
    """
    added = full_columns(case, seen)
    if not added:
        yield
        return
    ids = case.inputs["input_ids"]
    where = torch.zeros_like(ids, dtype=torch.bool)
    for encoding in seen.encodings:
        where |= ids == getattr(case.model.config, encoding.token)

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        pad = kwargs["inputs_embeds"].shape[1] - ids.shape[1]
        if pad < 0:  # a decode step
            return None
        mask = torch.nn.functional.pad(where, (pad, 0))
        return args, {
            **kwargs,
            "visual_pos_masks": mask,
            "deepstack_visual_embeds": [x[where] for x in added],
        }

    with before(case.language, hook):
        yield


def full_columns(case: Case, seen: Seen) -> list[Tensor]:
    """By layer, what is added to each column of the full prompt, [B, n, D]."""
    ids, layers = case.inputs["input_ids"], max((len(e.deep) for e in seen.encodings), default=0)
    found = []
    for i in range(layers):
        rows = [encoding.deep[i].nan_to_num(NEVER_SEEN) for encoding in seen.encodings]
        full = rows[0].new_zeros(*ids.shape, rows[0].shape[-1])
        for encoding, x in zip(seen.encodings, rows, strict=True):
            full[ids == getattr(case.model.config, encoding.token)] = x
        found.append(full)
    return found
