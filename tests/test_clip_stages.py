"""A stage runs in every tower that calls its layers, however it does; one that did not run is an error."""

import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from models import clip_vision, pixels, same
from vlm import Llava

from hf_vtp import apply_vtp, vtp_stats

pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def encode(run):
    """An encoder's forward that calls its layers as `run` does."""

    def forward(self, inputs_embeds, attention_mask=None, **kwargs):
        hidden_states = inputs_embeds
        for i, layer in enumerate(self.layers):
            hidden_states = run(i, layer, hidden_states, attention_mask)
        return types.SimpleNamespace(last_hidden_state=hidden_states, hidden_states=None, attentions=None)

    return forward


def hands_nothing_down(i, layer, hidden_states, attention_mask):
    return layer(hidden_states, attention_mask)


def skips_layer_one(i, layer, hidden_states, attention_mask):
    return hidden_states if i == 1 else layer(hidden_states, attention_mask)


@pytest.mark.parametrize("layer, ratio", [(1, 0.4), ([0, 2], [0.6, 0.3])])
@pytest.mark.parametrize("method", ["vtp", "qk_topk", "dynamic"])
def test_a_tower_that_hands_no_arguments_to_its_layers_prunes_all_the_same(method, layer, ratio):
    config = dict(method=method, layer=layer, keep_ratio=ratio)
    expected = apply_vtp(clip_vision(), **config)
    output = expected(pixels())
    model = clip_vision()
    model.encoder.forward = types.MethodType(encode(hands_nothing_down), model.encoder)
    found = apply_vtp(model, **config)(pixels())
    assert torch.equal(found.last_hidden_state, output.last_hidden_state)
    assert vtp_stats(model).num_kept == vtp_stats(expected).num_kept != vtp_stats(model).num_tokens
    model.encoder.layers[0](torch.randn(1, 37, 32), None)  # a layer alone is none of ours


@pytest.mark.parametrize("method", ["vtp", "flowcut", "prumerge", "tome"])
def test_threads_get_what_they_get_one_after_the_other(method):
    model = apply_vtp(clip_vision(), method=method, keep_ratio=0.4)
    batches = [pixels(batch, seed=batch) for batch in (1, 2, 3, 4)]
    alone = [model(batch) for batch in batches]

    def work(i):
        with torch.no_grad():
            return model(batches[i % 4])

    with ThreadPoolExecutor(4) as pool:
        assert all(same(found, alone[i % 4]) for i, found in enumerate(pool.map(work, range(40))))
    assert len(vtp_stats(model).num_kept) in (1, 2, 3, 4)


def test_a_stage_that_did_not_run_is_an_error():
    model = clip_vision()
    apply_vtp(model, method="qk_topk", layer=[1, 2], keep_ratio=0.5)
    model(pixels())
    model.encoder.forward = types.MethodType(encode(skips_layer_one), model.encoder)
    with pytest.raises(RuntimeError, match="after layer 1 of CLIPVisionModel did not run") as caught:
        model(pixels())
    assert "\n" not in str(caught.value)
    del model.encoder.forward
    twin = apply_vtp(clip_vision(), method="qk_topk", layer=[1, 2], keep_ratio=0.5)
    assert same(model(pixels()), twin(pixels()))


def test_generate_that_never_reads_the_features_is_an_error(monkeypatch):
    """A loop that does not carry the positions it was given, as a release to come might."""
    model, inputs = apply_vtp(Llava.model(), keep_ratio=0.5), Llava.inputs((1, 2))
    prepare = type(model).prepare_inputs_for_generation

    def without_positions(self, *args, **kwargs):
        return {k: v for k, v in prepare(self, *args, **kwargs).items() if k != "position_ids"}

    monkeypatch.setattr(type(model), "prepare_inputs_for_generation", without_positions)
    with pytest.raises(RuntimeError, match="did not read the image features"):
        model.generate(**inputs, max_new_tokens=2)


def test_generate_that_gathers_its_processors_elsewhere_is_an_error(monkeypatch):
    model, inputs = apply_vtp(Llava.model(), keep_ratio=0.5), Llava.inputs((1, 2))
    monkeypatch.setattr("hf_vtp.prompts.callbacks.MergeLists.__call__", lambda self, default, custom: default)
    with pytest.raises(RuntimeError, match="did not gather its logits processors"):
        model.generate(**inputs, max_new_tokens=2)
