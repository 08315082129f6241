"""Layers that attend to a window count the full prompt's columns, against the masked model of that window."""

import pytest
import torch
from cells import Pruned
from families import made
from test_vlm_generate import second_turn
from transformers import Gemma2Config
from vlm import FAMILIES, VOCAB, Llava, cached, expected_rows, new_tokens

from hf_vtp import apply_vtp, vtp

CLOSE = dict(atol=1e-5, rtol=1e-5)


class LlavaOverGemma2(Llava):
    """LLaVA over a Gemma2, of whose layers every second one has a window."""

    name = "llava over gemma2"

    @classmethod
    def windowed(cls, window):
        sizes = {**cls.text_sizes, "vocab_size": VOCAB, "head_dim": 8, "sliding_window": window}
        return cls.model(text=Gemma2Config(**sizes, tie_word_embeddings=False), implementation="eager")


@pytest.fixture(params=[*FAMILIES.values(), LlavaOverGemma2], ids=lambda family: family.name)
def family(request):
    return request.param


def pair(family, window, **how):
    """A pruned model with a window and an unpruned twin."""
    model = apply_vtp(family.windowed(window), **{"keep_ratio": 0.3, **how})
    return model, family.windowed(window)


@pytest.mark.parametrize("window", [3, 24])
def test_logits_are_the_masked_models(family, window):
    model, twin = pair(family, window)
    inputs = family.inputs((1, 0, 2))
    logits = model(**inputs).logits
    full = family.reference(model, inputs)
    expected = expected_rows(twin(**full).logits, full["attention_mask"])
    torch.testing.assert_close(logits, expected, **CLOSE)
    with vtp(model, keep_ratio=0.3, positions="compact"):
        compact = model(**inputs).logits
    full["position_ids"] = family.compact_positions(inputs, full)
    torch.testing.assert_close(compact, expected_rows(twin(**full).logits, full["attention_mask"]), **CLOSE)


MODES = {
    "greedy": dict(),
    "beams": dict(num_beams=3),
    "static": dict(cache_implementation="static"),
    "no cache": dict(use_cache=False),
    "lookup": dict(prompt_lookup_num_tokens=2),
    "chunks": dict(prefill_chunk_size=7),
}


@pytest.mark.parametrize("window", [5, 24])
@pytest.mark.parametrize("mode", MODES)
def test_words_are_the_masked_models(family, mode, window):
    rows = (2,) if mode == "lookup" else (1, 0, 2)
    model, twin = pair(family, window)
    inputs = family.inputs(rows)
    model(**inputs)
    full = family.reference(model, inputs, generating=True)
    if mode == "lookup":
        try:
            twin.generate(**inputs, max_new_tokens=8, **MODES[mode])
        except (ValueError, TypeError) as error:
            pytest.skip(f"the unpruned model refuses it: {error}")
    told = {} if mode in ("lookup", "chunks") else MODES[mode]
    expected = twin.generate(**full, max_new_tokens=8, **told)
    assert torch.equal(
        new_tokens(model.generate(**inputs, max_new_tokens=8, **MODES[mode]), inputs), expected
    )


def test_a_loop_by_hand_goes_on_in_full_columns(family):
    model, twin = pair(family, 24)
    inputs = family.inputs((1, 0))
    model(**inputs)
    full = family.reference(model, inputs)
    output, expected = model(**inputs, use_cache=True), twin(**full, use_cache=True)
    for step in range(12):
        text = torch.tensor([[5 + step], [6 + step]])
        more = torch.ones_like(text)
        full["attention_mask"] = torch.cat([full["attention_mask"], more], dim=1)
        position = family.next_position(full) + step
        output = model(input_ids=text, **cached(output))
        expected = twin(
            input_ids=text,
            attention_mask=full["attention_mask"],
            position_ids=position,
            **cached(expected),
        )
        torch.testing.assert_close(output.logits, expected.logits, **CLOSE)


@pytest.mark.parametrize("images", [0, 1])
def test_a_second_turn_goes_on_in_full_columns(family, images):
    model, _ = pair(family, 24)
    first = family.inputs((1, 2))
    told = dict(max_new_tokens=3, return_dict_in_generate=True)
    one = model.generate(**first, **told, use_cache=True)
    text, media = second_turn(family, first, one.sequences, images)
    whole = {**text, **media}
    found = model.generate(**whole, **cached(one), max_new_tokens=5)
    at_once = model.generate(**text, **family.merge(first, media, (1, 2), images), max_new_tokens=5)
    assert torch.equal(found, at_once)


def gemma3(window, **changes):
    model, inputs = made("gemma3", "Gemma3ForConditionalGeneration", **changes)
    config = model.config
    config.text_config.sliding_window = window
    other = type(model)._from_config(config)
    other.load_state_dict(model.state_dict())
    other.generation_config = model.generation_config
    return other.eval(), inputs


@pytest.mark.parametrize("window", [3, 6, 12])
def test_image_blocks_and_windows_go_together_as_the_release_has_it(window):
    model, inputs = gemma3(window)
    pruned = Pruned(model, inputs, [(6, 6)] * 3, method="qk_topk", layer=0, keep_ratio=0.5)
    rows, alive = pruned.full_rows(), pruned.alive()
    columns = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
    whole = pruned.masked(rows, lambda **given: model(**given, position_ids=columns))
    torch.testing.assert_close(pruned.output.logits[alive], whole.logits[alive], **CLOSE)


@pytest.mark.parametrize("mode", ["greedy", "beams", "static", "no cache"])
@pytest.mark.parametrize("window", [3, 12])
def test_words_of_a_model_with_image_blocks_are_the_masked_ones(window, mode):
    model, inputs = gemma3(window)
    how = dict(method="qk_topk", layer=0, keep_ratio=0.5)
    pruned = Pruned(model, inputs, [(6, 6)] * 3, **how)
    rows = pruned.full_rows()
    told = dict(max_new_tokens=8, do_sample=False, suppress_tokens=[model.config.image_token_id])
    told |= MODES[mode]
    with vtp(model, **how):
        short = model.generate(**inputs, **told)
    places = (inputs["attention_mask"].cumsum(dim=-1) - 1).clamp(min=0)
    whole = pruned.masked(rows, lambda **given: model.generate(**given, position_ids=places, **told))
    assert torch.equal(short, whole)
