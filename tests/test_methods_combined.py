"""Parts combined at will: what apply_vtp accepts runs, and what cannot run it refuses in one sentence."""

from dataclasses import replace

import pytest
import torch
from models import clip_vision, pixels
from references.cases import build, normal
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, vtp
from hf_vtp.methods.table import PARTS
from hf_vtp.pruning.registry import Entry

SCORERS, SELECTORS, MERGERS = (list(table) for table in PARTS.values())
# any two parts meet: scorers and selectors are more than the mergers, and go through all of them
COMBINATIONS = [
    (scorer, selector, MERGERS[(i + j) % len(MERGERS)])
    for i, scorer in enumerate(SCORERS)
    for j, selector in enumerate(SELECTORS)
]


def clip_call():
    model = clip_vision(layers=2, image_size=12)
    return model, lambda: model(pixels(2, size=12)).last_hidden_state


def llava_call():
    model, inputs = Llava.model(), Llava.inputs((1,))
    return model, lambda: model(**inputs).logits


def one_sentence(error):
    text = str(error.value if hasattr(error, "value") else error)
    assert len(text) < 250 and "\n" not in text and ". " not in text, text
    return text


def test_any_two_parts_meet():
    for places in ((0, 1), (0, 2), (1, 2)):
        met = {tuple(combination[i] for i in places) for combination in COMBINATIONS}
        tables = [list(PARTS.values())[i] for i in places]
        assert len(met) == len(tables[0]) * len(tables[1])


@pytest.mark.parametrize("call", [clip_call, llava_call])
def test_a_combination_runs_or_is_refused_when_it_is_applied(call):
    model, run = call()
    refused = []
    for scorer, selector, merger in COMBINATIONS:
        try:
            block = vtp(
                model, scorer=scorer, selector=selector, merger=merger, layer=[0, 1], keep_ratio=0.4
            ).__enter__
            block()
        except ValueError as error:
            refused.append((scorer, selector, one_sentence(error)))
            continue
        with torch.no_grad():
            assert run().isfinite().all(), (scorer, selector, merger)
        block.__self__.__exit__(None, None, None)
    observing = [x for x in refused if "observe earlier layers" in x[2]]
    assert [x[:2] for x in observing] == [("flow", "anchors_buffers"), ("flow", "global_local")]
    nameless = [x for x in refused if x[0] == "linear_probe" and x not in observing]
    assert len(nameless) == len(SELECTORS) and all("needs scorer_options" in x[2] for x in nameless)
    others = [x for x in refused if x not in observing and x not in nameless]
    assert all("text of a prompt" in x[2] for x in others) and (not others or call is clip_call)


def test_two_parts_that_observe_layers_are_refused():
    for changes in (
        {"scorer": "flow", "selector": "anchors_buffers"},
        {"method": "hiprune", "scorer": "flow"},
        {"method": "flowcut", "selector": "anchors_buffers", "scorer_options": {"momentum": 0.9}},
    ):
        with pytest.raises(ValueError) as error:
            apply_vtp(clip_vision(layers=2), **changes)
        text = one_sentence(error)
        assert "scorer 'flow'" in text and "selector 'anchors_buffers'" in text and "choose another" in text


def test_so_are_registered_ones_whatever_part_they_are(monkeypatch):
    row = Entry(
        lambda tokens, keep: (tokens.content, None, None),
        "",
        watches=lambda *args, **options: [0],
        observe=lambda tokens, **options: tokens.hidden_states.sum(-1),
    )
    monkeypatch.setitem(PARTS["merger"], "observing", row)
    assert VTPConfig(merger="observing").merger == "observing"
    for changes in ({"scorer": "flow"}, {"selector": "anchors_buffers"}):
        with pytest.raises(ValueError, match="merger 'observing' both observe earlier layers"):
            VTPConfig(merger="observing", **changes)


@pytest.mark.parametrize("merger", ["bipartite", "recycle", "weighted_mean"])
def test_a_kept_token_that_the_selector_has_in_no_group_stays_as_it_is(merger):
    tokens, keep = build(normal, (1, 2, 3), 6, prefix=1), torch.tensor([[1, 4], [0, 5]])
    groups = torch.full((2, 6), -1)
    groups[0, [4, 2]] = 1  # the only group
    merged, assignment, sizes = PARTS["merger"][merger].function(replace(tokens, groups=groups), keep)
    assert sizes.tolist() == [[1, 2], [1, 1]] and assignment[0].tolist() == [-1, 0, 1, -1, 1, -1]
    for b, k in ((0, 0), (1, 0), (1, 1)):
        torch.testing.assert_close(merged[b, k], tokens.content[b, keep[b, k]])
