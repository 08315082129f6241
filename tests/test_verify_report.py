"""hf_vtp.verify: the model is as it was, memory is bounded, and what the report says."""

import json
import sys

import pytest
import torch
from models import CLIP_CLASSES, clip, clip_inputs, same, state
from torch.utils._python_dispatch import TorchDispatchMode
from vlm import FAMILIES, Llava, Qwen

from hf_vtp import VTPConfig, apply_vtp, differences, verify, vtp_stats
from hf_vtp.apply import applied
from hf_vtp.verifying import api, checks

pytestmark = pytest.mark.models
DROP = dict(method="qk_topk", keep_ratio=0.5)


def verdicts(report):
    """Names of the checks by verdict."""
    return {v: {c.name for c in report.checks if c.holds is v} for v in (True, False, None)}


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_an_unpruned_model_is_as_it_was(family):
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs((1, 2))
    model.train()
    model.model.language_model.layers[1].eval()
    before, flags = state(model), [m.training for m in model.modules()]
    kept = {name: vars(model).get(name) for name in ("config", "generation_config")}
    config = dict(vars(model.config))
    verify(model, inputs, max_new_tokens=2, **DROP)
    assert state(model) == before and flags == [m.training for m in model.modules()]
    assert all(vars(model).get(name) is value for name, value in kept.items())
    assert vars(model.config) == config and applied(model) is None
    assert not hasattr(model.config, "vtp_config")


def test_a_pruned_model_is_verified_as_it_is_and_pruned_the_same_afterwards():
    model, inputs = Qwen.model(), Qwen.inputs((1, 2))
    apply_vtp(model, **DROP)
    model(**inputs)
    adapter, before, deltas = applied(model), state(model), model.model.rope_deltas
    kept, output = vtp_stats(model).keep_indices, model(**inputs)
    report = verify(model, Qwen.inputs((1,)), max_new_tokens=2)
    assert report.config["method"] == "qk_topk" and report.config["keep_ratio"] == 0.5 and report.holds
    assert applied(model) is adapter and state(model) == before and model.model.rope_deltas is not None
    assert deltas.shape == model.model.rope_deltas.shape
    assert all(map(torch.equal, vtp_stats(model).keep_indices, kept)) and same(model(**inputs), output)
    other = verify(model, inputs, max_new_tokens=1, keep_ratio=0.25)
    assert other.config["keep_ratio"] == 0.25 and applied(model) is adapter


def test_random_numbers_and_gradients_go_on_as_before():
    model, inputs = Llava.model(), Llava.inputs((1,))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    verify(model, inputs, **DROP)
    assert torch.equal(torch.rand(3), expected) and torch.is_grad_enabled()
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Largest(TorchDispatchMode):
    """The most numbers that a computation made with the vocabulary as the last axis."""

    def __init__(self, width):
        super().__init__()
        self.width, self.found = width, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        made = function is not torch.ops.aten.t.default  # a view of the head's weights
        if made and isinstance(output, torch.Tensor) and output.dim() > 1 and output.shape[-1] == self.width:
            self.found = max(self.found, output.numel())
        return output


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_logits_of_a_whole_prompt_are_never_there_at_once(family, monkeypatch):
    model, inputs = FAMILIES[family].model(), FAMILIES[family].inputs((1, 2))
    rows, columns = inputs["input_ids"].shape
    vocabulary = model.lm_head.out_features
    monkeypatch.setattr(checks, "LOGITS", 16 * vocabulary)
    with Largest(vocabulary) as largest:
        report = verify(model, inputs, max_new_tokens=4, **DROP)
    assert report.holds
    assert 16 * vocabulary == largest.found < rows * columns * vocabulary


def test_the_report_is_a_table_and_plain_values(monkeypatch):
    report = verify(clip("CLIPModel"), clip_inputs("CLIPModel"), **DROP)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["holds"] is True and told["model_class"] == "CLIPModel" and told["dtype"] == "float32"
    assert [c["name"] for c in told["checks"]] == list(api.CHECKS) and told["config"]["method"] == "qk_topk"
    assert repr(report) == report.table()
    monkeypatch.setitem(sys.modules, "rich.table", None)
    for table in (repr(report), report.table()):
        assert "holds" in table and "ratio 1.0" in table and "5 checks that apply hold" in table
        assert "no language model" in table
    with pytest.raises(KeyError, match="choose from"):
        report["speed"]


def test_a_figure_that_is_no_number_does_not_hold():
    model = clip("CLIPVisionModel")
    with torch.no_grad():
        model.encoder.layers[-1].mlp.fc2.bias.fill_(float("nan"))
    report = verify(model, clip_inputs("CLIPVisionModel"), **DROP)
    assert not report["tower"].holds and not report["ratio 1.0"].holds
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["checks"][0]["figure"] is None


def test_the_tolerance_given_is_the_bound_of_every_check_but_the_exact_ones():
    report = verify(Llava.model(), Llava.inputs((1,)), tolerance=1e-9, **DROP)
    assert {c.bound for c in report.checks if c.holds is not None} == {0.0, 1e-9}
    assert {"tower", "prompt"} <= verdicts(report)[False] and report["undo"].holds


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(keep_ratio=1.5), "keep_ratio must lie in"),
        (dict(layer=9), "layer 9 is beyond"),
        (dict(tolerance=0), "tolerance must be larger than 0"),
        (dict(max_new_tokens=0), "max_new_tokens must be a whole number"),
        (dict(inputs={"input_ids": torch.ones(1, 3)}), "the inputs hold no image; .* pixel_values"),
        (dict(config=7), "config must be"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_changed(changes, sentence):
    model = Llava.model()
    before = state(model)
    told = {"inputs": Llava.inputs((1,)), **changes}
    with pytest.raises((ValueError, TypeError), match=sentence):
        verify(model, told.pop("inputs"), **told)
    assert state(model) == before


def test_a_config_object_and_fields_go_together():
    report = verify(clip("CLIPModel"), clip_inputs("CLIPModel"), VTPConfig(method="random"), keep_ratio=0.25)
    assert report.config["method"] == "random" and "27 of 108" in report["tower"].detail


@pytest.mark.parametrize("name", CLIP_CLASSES)
def test_every_clip_class_has_its_pooled_output_compared(name, monkeypatch):
    compared = []
    between = differences.between
    monkeypatch.setattr(differences, "between", lambda a, b: compared.append(tuple(a.shape)) or between(a, b))
    verify(clip(name), clip_inputs(name), keep_ratio=0.5)
    pooled = {"CLIPModel": (3, 16), "CLIPVisionModel": (3, 32), "CLIPForImageClassification": (3, 5)}
    assert pooled.get(name, (3, 16)) in compared
