"""hf_vtp.verify: each promise, broken by hand, fails its own checks and no other."""

from dataclasses import replace

import pytest
import torch
from models import clip, clip_inputs, state
from vlm import Llava, Qwen

from hf_vtp import verify as verify_fully
from hf_vtp.families.placeholder import PlaceholderModel
from hf_vtp.prompts import reader as prompts
from hf_vtp.pruning import stage as pruner
from hf_vtp.towers.plain import PlainTower
from hf_vtp.towers.tower import LayerHooks, Tower
from hf_vtp.verifying.full_tower import FULL

pytestmark = pytest.mark.models
DROP = dict(method="qk_topk", keep_ratio=0.5)


def verify(*args, **kwargs):
    return verify_fully(*args, max_new_tokens=3, **kwargs)


def verdicts(report):
    """Names of the checks by verdict."""
    return {v: {c.name for c in report.checks if c.holds is v} for v in (True, False, None)}


def doubled_positions(monkeypatch):
    def broken(*args, **kwargs):
        prompt = condense(*args, **kwargs)
        return replace(prompt, position_ids=prompt.position_ids * 2)

    condense = prompts.condense
    monkeypatch.setattr(prompts, "condense", broken)


def other_tokens_named(monkeypatch):
    def broken(self):
        found = stats(self)
        dropped = [
            next((i for i in range(n) if i not in keep), 0)
            for n, keep in zip(found.num_tokens, map(torch.Tensor.tolist, found.keep_indices), strict=True)
        ]
        keep = [
            torch.tensor(sorted([d, *k.tolist()[1:]]))
            for d, k in zip(dropped, found.keep_indices, strict=True)
        ]
        return replace(found, keep_indices=keep)

    stats = PlaceholderModel.stats
    monkeypatch.setattr(PlaceholderModel, "stats", broken)


def scaled_features(monkeypatch):
    def broken(*args):
        outcome = merged(*args)
        outcome.hidden_states = outcome.hidden_states * 1.01
        return outcome

    merged = pruner.merged
    monkeypatch.setattr(pruner, "merged", broken)


def a_hook_left(monkeypatch):
    def broken(self):
        detach(self)
        self.module.register_forward_hook(lambda *args: None)

    detach = Tower.detach
    monkeypatch.setattr(Tower, "detach", broken)


def a_stage_that_rounds(monkeypatch):
    def broken(self, module, args, output):
        output = after(self, module, args, output)
        return None if output is None else output * (1 + 2e-6)

    after = LayerHooks._after
    monkeypatch.setattr(LayerHooks, "_after", broken)


def neighbours_decide(monkeypatch):
    def broken(tokens, config):
        scores, chosen = choose(tokens, config)
        return scores, replace(chosen, keep=chosen.keep[-1:].expand_as(chosen.keep))

    choose = pruner.choose
    monkeypatch.setattr(pruner, "choose", broken)


def decoding_elsewhere(monkeypatch):
    def broken(self, call, kwargs):
        kwargs = feed(self, call, kwargs)
        return {**kwargs, "position_ids": kwargs["position_ids"] * 2}

    feed = PlaceholderModel._feed_chunk
    monkeypatch.setattr(PlaceholderModel, "_feed_chunk", broken)


def a_step_that_fails(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the kernel is gone\nadvice for programmers")

    monkeypatch.setattr(PlaceholderModel, "generate", broken)


BREAKS = {
    doubled_positions: {"prompt", "generate"},
    other_tokens_named: {"tower", "prompt", "generate"},
    scaled_features: {"tower"},
    a_hook_left: {"undo"},
    a_stage_that_rounds: {"ratio 1.0"},
    neighbours_decide: {"batch"},
    decoding_elsewhere: {"generate"},
    a_step_that_fails: {"undo", "generate"},
}


@pytest.mark.parametrize("broken", BREAKS, ids=lambda f: f.__name__)
def test_a_broken_promise_fails_its_own_checks_and_no_other(broken, monkeypatch):
    model, inputs = Llava.model(), Llava.inputs((1, 2))
    model(**inputs)
    before = state(model)
    broken(monkeypatch)
    report = verify(model, inputs, **DROP)
    assert verdicts(report)[False] == BREAKS[broken], report.table()
    assert not report.holds and report.summary.startswith(f"{len(BREAKS[broken])} of 8 checks fail")
    assert state(model) == before


@pytest.mark.parametrize("merger", [None, "absorb"])
def test_groups_that_do_not_weigh_fail_the_check_for_absorbing(merger, monkeypatch):
    monkeypatch.setattr(PlainTower, "key_bias", lambda self, sizes, dtype: None)
    report = verify(clip("CLIPModel"), clip_inputs("CLIPModel"), keep_ratio=0.5, merger=merger)
    assert verdicts(report)[False] == {"absorbed"}, report.table()


def test_a_mean_that_is_wrong_fails_the_check_for_absorbing(monkeypatch):
    scaled_features(monkeypatch)
    report = verify(clip("CLIPModel"), clip_inputs("CLIPModel"), keep_ratio=0.5, merger="absorb")
    assert verdicts(report)[False] == {"absorbed"}, report.table()


def test_a_wrong_reference_does_not_pass_as_rounding(monkeypatch):
    from hf_vtp.verifying import full_packed  # noqa: F401

    kind = FULL[next(k for k in FULL if k.__name__ == "PackedTower")]
    monkeypatch.setattr(kind, "attention", lambda self, module, states, *_: torch.zeros_like(states))
    report = verify(Qwen.model(), Qwen.inputs((1,)), **DROP)
    assert {"tower rounding", "tower", "prompt rounding"} <= verdicts(report)[False]


def test_what_a_check_raises_stands_in_its_row_in_one_line(monkeypatch):
    a_step_that_fails(monkeypatch)
    report = verify(Llava.model(), Llava.inputs((1,)), **DROP)
    assert report["generate"].detail == "RuntimeError: the kernel is gone"
    assert report["generate"].figure is None and report["prompt"].holds
