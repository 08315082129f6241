"""Methods that choose behind the projector see, in every family, what its language model will read."""

import copy
from dataclasses import replace

import pytest
import torch
from families import LANGUAGE, classes, made
from torch.nn.functional import normalize
from vlm_families import inner_of, recorded

from hf_vtp import apply_vtp, verify
from hf_vtp.methods.selectors import SELECTORS

SEVERAL = ("vipllava",)  # reads several layers side by side: no layer's output is projected by itself
NOT_ALL_READ = ("llava_next", "llava_next_video")  # rows of padding leave behind the projector


@pytest.fixture
def seen(monkeypatch):
    """Of every stage that DivPrune acts in, its tokens projected and its hidden states, of length one."""
    stages, row = [], SELECTORS["max_min_diversity"]

    def spy(scores, tokens):
        stages.append((tokens.unit_projected_states(), tokens.unit_hidden_states()))
        return row.function(scores, tokens)

    monkeypatch.setitem(SELECTORS, "max_min_diversity", replace(row, function=spy))
    return stages


@pytest.mark.parametrize("model_type", LANGUAGE)
@torch.no_grad()
def test_what_is_compared_is_what_the_language_model_reads(model_type, seen):
    model, inputs = made(model_type, classes(model_type)[0])
    with recorded(inner_of(model)) as calls:
        model(**inputs)
    read = normalize(torch.cat([torch.cat(images) for _, images in calls]).float(), dim=-1)
    apply_vtp(model, method="divprune", keep_ratio=0.4)
    model(**inputs)
    assert seen
    if model_type in SEVERAL:
        assert all(torch.equal(states, hidden) for states, hidden in seen)
        return
    rows = torch.cat([states.flatten(0, 1) for states, _ in seen])
    found = torch.cdist(rows, read, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1) < 1e-4
    assert found.any() if model_type in NOT_ALL_READ else found.all()


@pytest.mark.parametrize("model_type", ["llava", "qwen2_5_vl"])
@torch.no_grad()
def test_inside_a_tower_hidden_states_are_compared(model_type, seen):
    model, inputs = made(model_type, classes(model_type)[0])
    apply_vtp(model, method="divprune", layer=0, keep_ratio=0.4)
    model(**inputs)
    assert seen and all(torch.equal(states, hidden) for states, hidden in seen)


@torch.no_grad()
def test_a_projector_is_asked_only_by_methods_that_need_it():
    model, inputs = made("llava", classes("llava")[0])
    calls = []
    model.model.multi_modal_projector.register_forward_hook(lambda *_: calls.append(1))
    for method, expected in (("qk_topk", 1), ("scope", 1), ("divprune", 2)):
        apply_vtp(model, method=method, layer="output", keep_ratio=0.4)
        calls.clear()
        model(**inputs)
        assert len(calls) == expected, method


@pytest.mark.parametrize("method", ["divprune", "todre", "cdpruner"])
@pytest.mark.parametrize("model_type", ["llava", "qwen2_5_vl", "internvl"])
def test_promises_hold_behind_the_projector(model_type, method):
    model, inputs = made(model_type, classes(model_type)[0])
    report = verify(model, inputs, method=method, keep_ratio=0.5, max_new_tokens=2)
    verdicts = {check.name: check.holds for check in report.checks}
    assert False not in verdicts.values(), report.table()
    assert all(verdicts[check] for check in ("undo", "ratio 1.0", "batch", "prompt", "generate")), (
        report.table()
    )


@torch.no_grad()
def test_a_copy_projects_with_its_own_weights(seen):
    model, inputs = made("llava", classes("llava")[0])
    apply_vtp(model, method="divprune", keep_ratio=0.4)
    twin = copy.deepcopy(model)
    for weight in model.model.multi_modal_projector.parameters():
        weight.normal_()
    model(**inputs), twin(**inputs)
    (own, _), (of_copy, _) = seen
    assert not torch.allclose(own, of_copy)
    seen.clear()
    model.model.multi_modal_projector.load_state_dict(twin.model.multi_modal_projector.state_dict())
    model(**inputs)
    assert torch.equal(seen[0][0], of_copy)
