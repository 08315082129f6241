"""Runs of the unpruned tower at full length, over the images of a case."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from ..stats import PER_IMAGE, StageStats, VTPStats
from .case import Case, Seen, after
from .encodings import Encoding, recording
from .full_tower import full_tower


def full_features(case: Case, pruned: Seen | None) -> list[Tensor]:
    """What a language model would be given of each image, [T, D], had what `pruned` dropped been masked.

    Without `pruned` nothing is masked: the same work as the unpruned tower's, done the other way.
    """
    return [rows for encoding in full_encodings(case, pruned) for rows in encoding.features]


def full_encodings(case: Case, pruned: Seen | None) -> list[Encoding]:
    """The same as calls of the model's encoders."""
    found, first = [], 0
    for run, encoding in enumerate(case.baseline.encodings):
        count = 0 if pruned is None else pruned.num_images[run]
        images = range(first, first + count)
        first = images.stop
        with masking(case, pruned, run, images), recording(case.adapter, case.inputs, []) as calls:
            getattr(case.inner, encoding.encoder)(*encoding.args, **encoding.kwargs)
        found += calls
    return found


def full_outputs(case: Case, pruned: Seen | None) -> Seen:
    """The same of a model without a language model: a forward of the whole of it."""
    images = range(len(case.baseline.last_layer))
    with ExitStack() as stack:
        stack.enter_context(masking(case, pruned, 0, images))
        replicated = pruned is None or (case.weighs and full_tower(case.tower).has_members(case.tower))
        if hasattr(case.model, "classifier") and not replicated:
            stack.enter_context(after(case.tower.module, _mean_over_kept(case, pruned.stats)))
        return case.look(case.inputs)


def masking(case: Case, pruned: Seen | None, run: int, images: range) -> AbstractContextManager:
    """What masks, in one run of the tower over some of the images, what `pruned` dropped of them."""
    kind = full_tower(case.tower)
    if pruned is None:
        return kind(case.tower, [], False, {}).installed() if kind else nullcontext()
    stages = [
        replace(stage, **{name: getattr(stage, name)[images.start : images.stop] for name in PER_IMAGE})
        for stage in pruned.stats.stages
    ]
    contents = {i: made[run] for i, made in pruned.contents.items()}
    for stage in stages:
        if stage.layer in contents:
            contents[stage.layer] = _without_padding(case, contents[stage.layer], stage)
    return kind(case.tower, stages, case.weighs, contents).installed()


def _without_padding(case: Case, states: Tensor, stage: StageStats) -> Tensor:
    """The output of a stage's layer as the rows [rows, D] of what is kept, image after image."""
    if states.dim() == 2:  # packed: there is none
        return states
    prefix, size = case.tower.num_prefix_tokens, case.tower.cells.size
    counts = [prefix + len(keep) * size for keep in stage.keep_indices]
    return torch.cat([rows[:count] for rows, count in zip(states, counts, strict=True)])


def _mean_over_kept(case: Case, stats: VTPStats):
    """Scale patches so that their mean is that of the kept ones, each counted as often as its size says."""

    def hook(module, args, output):
        states, prefix, stage = output.last_hidden_state, case.tower.num_prefix_tokens, stats.stages[-1]
        share = torch.zeros(states.shape[:2], device=states.device)
        for b, (keep, sizes) in enumerate(zip(stage.keep_indices, stage.sizes, strict=True)):
            share[b, keep + prefix] = sizes / sizes.sum() * stats.num_tokens[b]
        share[:, :prefix] = 1
        output.last_hidden_state = (states.float() * share.unsqueeze(-1)).to(states.dtype)
        return output

    return hook
