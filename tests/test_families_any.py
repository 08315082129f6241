"""Models without a row are pruned after their features: known ones, and classes that nobody has heard of."""

import pytest
import torch
import transformers
from any_models import FORMS, AddsInside, AsksNobody, FlatPatchLlama, PatchLlama, patch_llama
from any_oracle import Twins, inner_of
from families import made
from models import state
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from hf_vtp import apply_vtp, canary, list_families, list_methods, remove_vtp, verify, vtp_stats
from hf_vtp.families import first_use
from hf_vtp.families.table import REFUSED
from hf_vtp.verifying import tiny

pytestmark = pytest.mark.models
KNOWN = ("fast_vlm", "florence2", "gemma3n", "llava_onevision", "perception_lm")
DROP = dict(keep_ratio=0.5, merger="drop")  # with the default method, whose merger absorbs


def known(model_type):
    """A tiny model of a family and a batch for it."""
    return made(model_type, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type])


@pytest.fixture
def unheard(monkeypatch):
    """A process in which no class was compared."""
    monkeypatch.setattr(canary, "_passed", set())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [PatchLlama, FlatPatchLlama])
def test_a_class_nobody_has_heard_of_reads_the_masked_prompt_in_every_form(kind, form):
    twins = Twins(lambda: patch_llama(kind, form), **DROP)
    found, expected = twins.logits(twins.inputs)
    assert torch.allclose(found, expected, atol=1e-5)
    for arguments in ({}, {"num_beams": 3}, {"cache_implementation": "static"}, {"use_cache": False}):
        found, expected = twins.generated(twins.inputs, **arguments)
        assert torch.equal(found, expected), arguments
    square = [(1, 4, 4)] * 3
    assert vtp_stats(twins.model).grids == ([(1, 1, 32), (1, 1, 16)] if "together" in form else square)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("model_type", KNOWN)
def test_a_family_without_a_row_reads_the_masked_prompt(model_type, positions):
    if model_type == "florence2" and positions == "compact":
        pytest.skip("an encoder counts the columns of the full prompt, which has no compact positions")
    twins = Twins(lambda: known(model_type), positions=positions, **DROP)
    found, expected = twins.logits(twins.inputs)
    # AltUp of Gemma3n divides by small numbers
    assert torch.allclose(found, expected, atol=1e-4 if model_type == "gemma3n" else 1e-5)
    beams = {} if model_type == "gemma3n" else {"num_beams": 2}  # its random beams are ties
    for arguments in ({}, beams):
        found, expected = twins.generated(twins.inputs, **arguments)
        assert torch.equal(found, expected), arguments


@pytest.mark.parametrize("method", ["vtp", "divprune", "dynamic", "cdpruner"])
@pytest.mark.parametrize("model_type", KNOWN)
def test_promises_hold_without_a_row(model_type, method):
    report = verify(*known(model_type), method=method, keep_ratio=0.5, max_new_tokens=3)
    verdicts = {check.name: check.holds for check in report.checks}
    assert False not in verdicts.values(), report.table()
    assert all(verdicts[name] for name in ("undo", "ratio 1.0", "prompt", "batch")), report.table()
    assert verdicts["tower"] is None and "after the features" in report.table()


def test_a_second_turn_goes_on_from_the_masked_prompt():
    twins = Twins(patch_llama, **DROP)
    inputs, text = twins.inputs, torch.tensor([[12, 13], [14, 15], [16, 17]])
    told = {**twins.words, "max_new_tokens": 3, "return_dict_in_generate": True}
    first = twins.model.generate(**inputs, **told)
    more = torch.cat([first.sequences, text], dim=1)
    new = more.shape[1] - inputs["input_ids"].shape[1]
    again = {**inputs, "input_ids": more}
    again["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, new), value=1)
    rest = {k: x for k, x in again.items() if k != "pixel_values"}
    cache = {k: x for k, x in first.items() if k in ("cache", "past_key_values")}
    found = twins.model.generate(**rest, **cache, **told).sequences
    _, expected = twins.generated(again, max_new_tokens=3)  # one prompt of both turns, the images at once
    assert torch.equal(found[:, more.shape[1] :], expected)


@pytest.mark.parametrize("model_type", [*KNOWN, "unheard"])
def test_gradients_are_those_of_the_masked_prompt(model_type):
    twins = Twins(patch_llama if model_type == "unheard" else lambda: known(model_type), **DROP)
    inputs, decodes = twins.inputs, twins.twin.config.is_encoder_decoder
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for token in twins.tokens.values():
        labels = labels.masked_fill(labels == token, -100)
    if decodes:
        labels = labels[:, -4:].contiguous()
    else:  # a column after a dropped one is predicted by the last kept before it, here by nothing
        labels[:, 1:][labels[:, :-1] == -100] = -100
    with twins.masked(inputs) as reference:
        twins.twin(**reference, labels=labels).loss.backward()
    twins.model(**inputs, labels=labels).loss.backward()
    own, compared = dict(twins.model.named_parameters()), 0
    grads = [weight.grad for weight in twins.twin.parameters() if weight.grad is not None]
    bound = 1e-5 * max(float(grad.abs().max()) for grad in grads)
    for name, weight in twins.twin.named_parameters():
        assert (weight.grad is None) == (own[name].grad is None), name
        if weight.grad is not None:
            assert torch.allclose(own[name].grad, weight.grad, atol=bound, rtol=1e-4), name
            compared += any(part in name for part in ("patches", "vision"))
    assert compared, "no weight of the encoder was compared"


@pytest.mark.parametrize("model_type", [*KNOWN, "unheard"])
def test_undo_and_ratio_one_are_bit_equal(model_type):
    model, inputs = patch_llama() if model_type == "unheard" else known(model_type)
    inner = inner_of(model)
    with torch.no_grad():
        plain = model(**inputs).logits
        model.generate(**inputs, max_new_tokens=1)
        before = state(model)  # with what Transformers leaves of a first call
        apply_vtp(model, keep_ratio=1.0)
        assert torch.equal(model(**inputs).logits, plain)
        stats = vtp_stats(model)
        assert stats.num_kept == stats.num_tokens and sum(stats.num_tokens) > 0
        model.generate(**inputs, max_new_tokens=1)
        assert vtp_stats(model).num_tokens == stats.num_tokens
        apply_vtp(model, keep_ratio=0.5)
        model(**inputs)
        remove_vtp(model)
        assert torch.equal(model(**inputs).logits, plain)
    assert "get_image_features" not in vars(inner)
    assert state(model) == before


def test_a_prompt_is_independent_of_others_where_all_images_come_as_one():
    model, inputs = patch_llama(form="all images together")
    apply_vtp(model, method="divprune", keep_ratio=0.4)
    model(**inputs)
    together = vtp_stats(model).keep_indices
    row = {k: x[1:2] for k, x in inputs.items()} | {"pixel_values": inputs["pixel_values"][2:]}
    model(**row)
    assert torch.equal(vtp_stats(model).keep_indices[0], together[1])


def test_methods_that_read_layers_are_refused_and_the_default_has_a_stand_in():
    model, _ = patch_llama()
    for name, row in list_methods().items():
        if row["after_features"] == "no":
            with pytest.raises(ValueError, match="laid out is not known; choose a method that needs none"):
                apply_vtp(model, method=name)
        else:
            apply_vtp(model, method=name)
            assert model._vtp.config.method == name
    stand_ins = "scorer token_norm, selector spread, merger absorb"
    assert list_methods()["vtp"]["after_features"] == stand_ins
    assert list_methods()["divprune"]["after_features"] == "yes"
    with pytest.raises(ValueError, match="reads key"):
        apply_vtp(model, scorer="qk_norm")
    with pytest.raises(ValueError, match="reads key"):
        apply_vtp(model, scorer="qk_norm", scorer_options={"of": "q"})
    with pytest.raises(ValueError, match="one stage; choose from 0 to 0"):
        apply_vtp(model, layer=1)


def test_the_default_keeps_the_longest_features():
    model, inputs = patch_llama()
    apply_vtp(model, keep_ratio=0.25, selector="top_k", merger="drop")
    model(**inputs)
    with torch.no_grad():
        features = remove_vtp(model).get_image_features(inputs["pixel_values"]).pooler_output
    apply_vtp(model, keep_ratio=0.25, selector="top_k", merger="drop")
    model(**inputs)
    for rows, keep in zip(features, vtp_stats(model).keep_indices, strict=True):
        assert set(keep.tolist()) == set(rows.norm(dim=-1).topk(4).indices.tolist())


@pytest.mark.parametrize("model_type", sorted(set(REFUSED) & set(transformers.CONFIG_MAPPING)))
def test_models_without_rows_of_features_in_the_prompt_are_refused_by_name(model_type):
    class Named(torch.nn.Module):
        config = AutoConfig.for_model(model_type)

    assert model_type not in list_families()
    with pytest.raises((ValueError, TypeError)) as refusal:
        apply_vtp(Named())
    if isinstance(refusal.value, ValueError):
        assert REFUSED[model_type] in str(refusal.value)


@pytest.mark.parametrize(
    ("inside", "sentence"), [(AddsInside, "differ by"), (AsksNobody, "does not get its")]
)
def test_a_class_that_breaks_the_promise_is_refused_at_its_first_prompt(inside, sentence, unheard):
    model, inputs = patch_llama()
    model.model.__class__ = inside
    apply_vtp(model)
    for call in (lambda: model(**inputs), lambda: model.generate(**inputs, max_new_tokens=1)):
        with pytest.raises(RuntimeError, match=f"PatchLlama cannot be pruned: .*{sentence}"):
            call()
    assert remove_vtp(model)(**inputs).logits.isfinite().all()


def test_a_class_is_compared_once_and_its_mode_and_gradients_are_let_be(unheard, monkeypatch):
    compared, full = [], first_use.FirstUse.full
    monkeypatch.setattr(first_use.FirstUse, "full", lambda self: compared.append(self) or full(self))
    model, inputs = patch_llama()
    apply_vtp(model.train(), keep_ratio=0.5)
    assert model(**inputs).logits.requires_grad
    assert all(module.training for module in model.modules())
    model.eval().generate(**inputs, max_new_tokens=1)
    other, _ = patch_llama(form="list")
    apply_vtp(other, keep_ratio=0.5)(**inputs)
    assert len(compared) == 1


def test_a_tiny_model_goes_first_on_every_release_where_a_class_has_no_row(unheard, monkeypatch):
    tried, make = [], tiny.tiny
    monkeypatch.setattr(tiny, "tiny", lambda kind, config: tried.append(kind) or make(kind, config))
    model, inputs = known("fast_vlm")
    tried.clear()
    apply_vtp(model, keep_ratio=0.5)
    apply_vtp(model, keep_ratio=0.6)
    assert tried == [type(model)]
    monkeypatch.setattr(first_use.FirstUse, "full", lambda self: pytest.fail("compared twice"))
    model(**inputs)


def test_a_tiny_model_that_goes_wrong_refuses(unheard, monkeypatch):
    model, _ = known("fast_vlm")
    from hf_vtp.prompts import condense

    monkeypatch.setattr(condense.Condensed, "take", lambda self, x: x[:, : self.index.shape[1]])
    with pytest.raises(RuntimeError, match="for a class without a row in it pruning a tiny FastVlm"):
        apply_vtp(model)
    assert "_vtp" not in vars(model)
