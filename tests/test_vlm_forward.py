"""`forward` of the language-model families: the pruned prompt equals the full one with tokens masked."""

import copy

import pytest
import torch
from models import same, state
from vlm import FAMILIES, expected_rows

from hf_vtp import apply_vtp, list_methods, remove_vtp, vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models
ROWS = [(1, 0, 3), (2, 2), (1,), (0, 1)]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.mark.parametrize("method", list_methods())
def test_ratio_one_is_bit_equal(family, method):
    model, inputs = family.model(), family.inputs()
    plain = model(**inputs, output_hidden_states=True)
    for arguments in (dict(keep_ratio=1.0), dict(keep_ratio=1.0, layer=[0, 1])):
        apply_vtp(model, method=method, **arguments)
        assert same(plain, model(**inputs, output_hidden_states=True))


def test_removed_is_never_applied(family):
    model, twin, inputs = family.model(), family.model(), family.inputs()
    apply_vtp(model, keep_ratio=0.3)
    pruned = model(**inputs)
    model.generate(**inputs, max_new_tokens=2)
    remove_vtp(model)
    plain = twin(**inputs)
    twin.generate(**inputs, max_new_tokens=2)
    assert not same(pruned.logits, plain.logits)
    assert state(model) == state(twin)
    assert same(model(**inputs), twin(**inputs))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("ratio", [0.6, 0.1])
def test_logits_are_the_masked_models(family, rows, side, ratio, implementation):
    model, twin = family.model(implementation=implementation), family.model(implementation=implementation)
    inputs = family.inputs(rows, side=side)
    apply_vtp(model, keep_ratio=ratio)
    output = model(**inputs)
    reference = family.reference(model, inputs)
    full = twin(**reference).logits
    assert output.logits.shape == (*inputs["input_ids"].shape, full.shape[-1])
    expected = expected_rows(full, reference["attention_mask"])
    torch.testing.assert_close(output.logits, expected, **CLOSE)


def test_no_mask_is_a_mask_of_ones(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    with_mask = model(**inputs).logits
    del inputs["attention_mask"]
    torch.testing.assert_close(model(**inputs).logits, with_mask, **CLOSE)
    torch.testing.assert_close(model(**inputs, use_cache=False).logits, with_mask, **CLOSE)


def test_labels_give_the_cross_entropy_over_the_logits(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((2, 0, 1))
    labels = inputs["input_ids"].clone()
    labels[inputs["attention_mask"] == 0] = -100
    output = model(**inputs, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected, **CLOSE)


@pytest.mark.parametrize("keep", [1, 7, torch.tensor([0, 3, 20])])
def test_logits_to_keep_counts_full_columns(family, keep):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs()
    whole = model(**inputs).logits
    index = slice(-keep, None) if isinstance(keep, int) else keep
    torch.testing.assert_close(model(**inputs, logits_to_keep=keep).logits, whole[:, index], **CLOSE)


def test_inputs_embeds_in_place_of_ids(family):
    if not family.embeds_are_ids:
        pytest.skip("positions come from the ids")
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs()
    by_ids = model(**inputs).logits
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    torch.testing.assert_close(model(inputs_embeds=embeds, **inputs).logits, by_ids, **CLOSE)


def test_tuples_and_base_models(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs()
    output = model(**inputs)
    torch.testing.assert_close(model(**inputs, return_dict=False)[0], output.logits, **CLOSE)
    base = family.model().model
    plain = base(**inputs).last_hidden_state
    apply_vtp(base, keep_ratio=0.3)
    states = base(**inputs).last_hidden_state
    assert states.shape == plain.shape and not torch.equal(states, plain)
    torch.testing.assert_close(model.lm_head(states), output.logits, **CLOSE)
    positional = base(inputs.pop("input_ids"), **inputs).last_hidden_state
    assert torch.equal(positional, states)


def test_text_alone_is_untouched(family, monkeypatch):
    model, twin = apply_vtp(family.model(), keep_ratio=0.3), family.model()
    monkeypatch.setattr(
        "hf_vtp.families.placeholder.PlaceholderModel.read", lambda *_: pytest.fail("read a prompt of text")
    )
    inputs = family.inputs((0, 0))
    assert same(model(**inputs), twin(**inputs))
    assert torch.equal(model.generate(**inputs, max_new_tokens=4), twin.generate(**inputs, max_new_tokens=4))


@pytest.mark.parametrize("method", list_methods())
def test_batch_is_its_rows(family, method):
    model = apply_vtp(family.model(), keep_ratio=0.4, method=method)
    inputs = family.inputs((1, 2, 0))
    whole = model(**inputs)
    start = 0
    for r, images in enumerate((1, 2, 0)):
        alone = family.row(inputs, r, start, images)
        live = inputs["attention_mask"][r].bool()
        torch.testing.assert_close(model(**alone).logits[0][live], whole.logits[r][live], **CLOSE)
        start += images


def test_two_models_and_deep_copies(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs()
    plain, answer = model(**inputs).logits, model.generate(**inputs, max_new_tokens=4)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.mul_(1.2)
    fresh = family.model()
    fresh.load_state_dict(twin.state_dict())
    apply_vtp(fresh, keep_ratio=0.3)
    assert torch.equal(twin(**inputs).logits, fresh(**inputs).logits)
    assert torch.equal(twin.generate(**inputs, max_new_tokens=4), fresh.generate(**inputs, max_new_tokens=4))
    assert torch.equal(model(**inputs).logits, plain)
    assert torch.equal(model.generate(**inputs, max_new_tokens=4), answer)
    remove_vtp(twin)
    assert "generate" not in vars(twin) and torch.equal(model(**inputs).logits, plain)


def test_undo_after_an_exception(family):
    model, twin, inputs = family.model(), family.model(), family.inputs()

    def fail(*_):
        raise RuntimeError("broken layer")

    apply_vtp(model, keep_ratio=0.3)
    held = model(**inputs).logits
    handle = model.model.language_model.layers[1].register_forward_hook(fail)
    for call in (model, model.generate):
        with pytest.raises(RuntimeError, match="broken layer"):
            call(**inputs)
    handle.remove()
    assert torch.equal(model(**inputs).logits, held)
    remove_vtp(model)
    twin(**inputs)
    assert same(model(**inputs), twin(**inputs))


def test_context_manager(family):
    model, inputs = family.model(), family.inputs()
    plain = model(**inputs).logits
    with vtp(model, keep_ratio=0.5):
        half = model(**inputs).logits
        with vtp(model, keep_ratio=0.2):
            assert not torch.equal(model(**inputs).logits, half)
        assert torch.equal(model(**inputs).logits, half)
    assert torch.equal(model(**inputs).logits, plain)


def test_wrong_placeholders_are_refused(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1,))
    inputs["input_ids"][0, 5] = 3
    with pytest.raises(ValueError, match="placeholders"):
        model(**inputs)
    with pytest.raises(NotImplementedError, match="2-D attention_mask"):
        model(**{**family.inputs((1,)), "attention_mask": torch.zeros(1, 1, 4, 4)})


def test_statistics_are_per_image(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.25), family.inputs((1, 0, 2))
    model(**inputs)
    stats = vtp_stats(model)
    assert len(stats.keep_indices) == 3
    for n, k, kept in zip(stats.num_tokens, stats.num_kept, stats.keep_indices, strict=True):
        assert k == round(0.25 * n) == len(kept) and (kept.diff() > 0).all()
