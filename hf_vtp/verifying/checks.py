"""Promises of what is pruned, one function each."""

from __future__ import annotations

import torch

from .. import apply as patch
from ..differences import Difference, between, largest
from .condensed import spread
from .encodings import Encoding
from .footprint import Footprint
from .full_prompt import (
    compared,
    full_mask,
    full_prompt,
    generate_positions,
    greedy,
    greedy_by_hand,
    short_prompt,
    shown,
)
from .full_tower import FullTower, full_tower
from .outcome import NotApplicable, Outcome
from .rounding import Measured, alike
from .tower_runs import full_encodings, full_outputs

LOGITS = 1 << 24  # numbers of logits that are there at once


def ratio_one(case: Measured) -> Outcome:
    with patch.vtp(case.model, case.config.replace(keep_ratio=1.0, min_keep=1, max_keep=None)):
        found = case.look(case.inputs).outputs
        stats = patch.vtp_stats(case.model)
    gone = sum(stats.num_tokens) - sum(stats.num_kept)
    wrong = f"{gone} tokens were dropped" if gone else ""
    return Outcome(alike(found, case.baseline.outputs), case.repeated, wrong, _unsteady(case))


def undo(case: Measured) -> Outcome:
    plain, speaks = case.baseline.outputs, case.prompted and hasattr(type(case.model), "generate")
    if speaks:
        greedy(case, case.inputs, 1)
    before = Footprint(case.model)
    patch.apply_vtp(case.model, case.config)
    try:
        case.look(case.inputs)
        if speaks:
            greedy(case, case.inputs, 1)
    finally:
        patch.take_off(case.model)
    changed = before.differences()
    wrong = f"remains: {'; '.join(changed[:3])}{' …' * (len(changed) > 3)}" if changed else ""
    found = alike(case.look(case.inputs).outputs, plain)
    return Outcome(found, case.repeated, wrong, _unsteady(case))


def tower_rounding(case: Measured) -> Outcome:
    _reference_of(case)
    return Outcome(case.tower_noise, case.bounds.widest)


def tower(case: Measured) -> Outcome:
    kind = _reference_of(case)
    if case.weighs and kind.takes_weights:
        raise NotApplicable(f"merger {case.merger!r} weighs groups by their size, see the check 'absorbed'")
    return _tower_at_full_length(case)


def absorbed(case: Measured) -> Outcome:
    if not case.weighs:
        raise NotApplicable(f"merger {case.merger!r} makes no groups that weigh by their size")
    if not _reference_of(case).takes_weights:
        raise NotApplicable("the attention of this tower takes no weights, see the check 'tower'")
    return _tower_at_full_length(case)


def prompt_rounding(case: Measured) -> Outcome:
    needs_prompt(case)
    return Outcome(case.prompt_noise, case.bounds.widest)


def prompt(case: Measured) -> Outcome:
    needs_prompt(case)
    _refuse_counted(case)
    with full_prompt(case, case.positions) as reference:
        seen, alive = case.look(short_prompt(case, reference)).outputs, reference["attention_mask"]
    if case.decodes:
        return Outcome(
            alike(case.pruned.outputs, seen), case.bounds.over(case.prompt_noise), detail=_kept(case)
        )
    states = spread(seen["hidden states"], alive) if case.recurrent else seen["hidden states"]
    expected = shown(states, alive)
    text = compared(case)  # what stands in columns of padding is nobody's business
    found, wanted = case.pruned.outputs["hidden states"][text], expected[text]  # [tokens, D]
    apart = between(found, wanted)
    head = getattr(case.model, "lm_head", None)
    if head is not None:
        there = alive[:, -1] != 0
        apart = apart | between(case.pruned.outputs["logits"][there, -1], seen["logits"][there, -1])
        step = max(1, LOGITS // head.out_features)
        for a, b in zip(found.split(step), wanted.split(step), strict=True):
            apart = apart | between(head(a), head(b))
    return Outcome(apart, case.bounds.over(case.prompt_noise), detail=_kept(case))


def generate(case: Measured) -> Outcome:
    needs_prompt(case)
    if not hasattr(type(case.model), "generate"):
        raise NotApplicable(f"{type(case.model).__name__} does not generate")
    _refuse_counted(case)
    if not case.decodes and not full_mask(case)[:, -1].all():
        raise NotApplicable("Transformers generates from rows padded on the left only, and these are not")
    ids, new = case.inputs["input_ids"], case.max_new_tokens
    if not case.decodes and any(
        (ids[:, -1] == getattr(case.model.config, token)).any() for token in case.media.values()
    ):
        raise NotApplicable("a row ends in a placeholder, and the reference needs a word to go on from")
    positions = case.positions if case.decodes else generate_positions(case)
    with full_prompt(case, positions) as reference:
        write = greedy if case.decodes else greedy_by_hand
        expected, expected_logits = write(case, short_prompt(case, reference), new)
    with patch.vtp(case.model, case.config):
        sequences, logits = greedy(case, case.inputs, new)
    expected, prompt = expected[:, -new:], ids[:, :0] if case.decodes else ids
    if sequences.shape[1] < prompt.shape[1] + new or not torch.equal(sequences[:, : prompt.shape[1]], prompt):
        return Outcome(Difference(), 0.0, "what generate returned does not begin with the whole prompt")
    tokens = sequences[:, -new:]
    equal = (tokens == expected).long().cumprod(dim=1).sum(dim=1).tolist()  # before the first other one
    worst, others, wrong = Difference(), [], ""
    for b, n in enumerate(equal):
        worst = worst | between(logits[b, : n + 1], expected_logits[b, : n + 1])
        if n < new:
            row, apart = expected_logits[b, n].float(), between(logits[b, n], expected_logits[b, n]).absolute
            gap = float(row[expected[b, n]] - row[tokens[b, n]])
            others.append(f"row {b} from token {n} on, between words whose logits lie {gap:.1e} apart")
            if gap > 2 * apart:  # more than a difference of this size can turn round
                wrong = "another word was taken than the logits say"
    detail = f"{sum(equal)} of {tokens.numel()} tokens are equal before the first other one"
    detail += f"; others: {', '.join(others)}" if others else ""
    return Outcome(worst, case.bounds.over(case.prompt_noise), wrong, detail)


def needs_prompt(case: Measured) -> None:
    """Raise NotApplicable where there is no prompt to shorten."""
    if not case.prompted:
        raise NotApplicable(f"{type(case.model).__name__} has no language model after its tower")
    if "input_ids" not in case.inputs:
        raise NotApplicable("the inputs hold no input_ids")


def _refuse_counted(case: Measured) -> None:
    if case.decodes and case.config.positions == "compact":
        raise NotApplicable("an encoder gives compact positions to a compact prompt only")


def _reference_of(case: Measured) -> type[FullTower]:
    kind = full_tower(case.tower)
    if case.prompted and case.adapter.after_features:
        raise NotApplicable("tokens leave after the features, and nothing within the tower changes")
    if kind is None:
        raise NotApplicable(f"there is no reference at full length for a {type(case.tower).__name__}")
    return kind


def _tower_at_full_length(case: Measured) -> Outcome:
    kept, found = case.kept(case.pruned), case.kept_features(case.pruned)
    apart = Difference()
    if case.prompted:
        encodings = full_encodings(case, case.pruned)
        full = [rows for encoding in encodings for rows in encoding.features]
        apart = _deepstack(case, encodings)
    else:
        seen = full_outputs(case, case.pruned)
        full, outputs = list(seen.last_layer), case.pruned.outputs
        same = [
            name for name in outputs if outputs[name].shape == seen.outputs[name].shape
        ]  # no rows of tokens
        apart = alike(*({name: x[name] for name in same} for x in (outputs, seen.outputs)))
    pairs = zip(
        found, (rows[keep.to(rows.device)] for rows, keep in zip(full, kept, strict=True)), strict=True
    )
    return Outcome(apart | largest(pairs), case.bounds.over(case.tower_noise), detail=_kept(case))


def _deepstack(case: Measured, full: list[Encoding]) -> Difference:
    """Of what DeepStack adds to the columns of kept tokens."""
    apart, kept = Difference(), iter(case.kept(case.pruned))
    for whole, encoding in zip(full, case.pruned.encodings, strict=True):
        rows, start = [], 0
        for features in encoding.features:
            rows.append(next(kept) + start)
            start += len(features)
        rows = torch.cat(rows)
        apart = apart | largest((a[rows], b[rows]) for a, b in zip(encoding.deep, whole.deep, strict=True))
    return apart


def _kept(case: Measured) -> str:
    stats = case.pruned.stats
    return f"{sum(stats.num_kept)} of {sum(stats.num_tokens)} tokens kept"


def _unsteady(case: Measured) -> str:
    return "two forwards of the unpruned model differ by as much as the bound" if case.repeated else ""
