"""LLaVA's own arguments: which states it reads, with or without [CLS], and what the projector gets to see."""

import pytest
import torch
from models import state, vision_config
from oracles import masked_clip
from transformers import (
    BeitConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from vlm import IMAGE, Llava, expected_rows

from hf_vtp import apply_vtp, remove_vtp, vtp, vtp_stats
from hf_vtp.methods.layers import default_layers

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models
DROP = dict(method="qk_topk", keep_ratio=0.3)  # 11 of 36


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def features_of(twin, pixel_values, stats, read, prefix=0):
    """What LLaVA must put into the prompt: the projector over the kept rows of a masked full-length tower."""
    states = masked_clip(
        twin.model.vision_tower, pixel_values, {s.layer: s.keep_indices for s in stats.stages}
    )
    features = []
    for image, kept in enumerate(stats.keep_indices):
        rows = torch.cat([torch.arange(prefix), kept + 1])
        features.append(
            twin.model.multi_modal_projector(torch.cat([states[i][image, rows] for i in read], dim=-1))
        )
    return torch.cat(features)


def image_rows(output):
    """What a model says its images became, [T, D]: `image_outputs`, before 5.24 `image_hidden_states`."""
    if not hasattr(output, "image_outputs"):
        return output.image_hidden_states
    return None if output.image_outputs is None else torch.cat(list(output.image_outputs.pooler_output))


def kept_columns(inputs, stats, prefix=0):
    """The prompt's columns that are left, [B, n]."""
    alive = inputs["attention_mask"].clone()
    flags = torch.zeros(len(stats.keep_indices), prefix + 36, dtype=torch.long)
    flags[:, :prefix] = 1
    for image, kept in enumerate(stats.keep_indices):
        flags[image, kept + prefix] = 1
    return alive.masked_scatter(inputs["input_ids"] == IMAGE, flags.flatten())


def check(model, twin, inputs, read, prefix=0, **told):
    """Features, logits and tokens of the pruned model against a full one that shares no code with it."""
    output = model(**inputs, **told)
    stats = vtp_stats(model)
    assert stats.num_kept == [11] * len(inputs["pixel_values"])
    features = features_of(twin, inputs["pixel_values"], stats, read, prefix)
    torch.testing.assert_close(image_rows(output), features, **CLOSE)
    ids, alive = inputs["input_ids"], kept_columns(inputs, stats, prefix)
    embeds = twin.get_input_embeddings()(ids)
    embeds[(ids == IMAGE) & (alive == 1)] = features
    full = dict(inputs_embeds=embeds, attention_mask=alive)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    logits = twin(**full, position_ids=positions).logits
    torch.testing.assert_close(output.logits, expected_rows(logits, alive), **CLOSE)
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    tokens = twin.generate(**full, position_ids=positions, max_new_tokens=4)
    sequences = model.generate(**inputs, **told, max_new_tokens=4)
    assert torch.equal(sequences, torch.cat([ids, tokens], dim=1))


@pytest.mark.parametrize("layer", [0, 1, [0, 1]])
@pytest.mark.parametrize("order", [[-3, -2], [3, 2], [-2, -3, 4]])
def test_several_states_are_read(order, layer):
    told = dict(vision_feature_layer=order)
    model, twin = apply_vtp(Llava.model(**told), layer=layer, **DROP), Llava.model(**told)
    check(model, twin, Llava.inputs((1, 0, 2)), read=[i % 5 - 1 for i in order])


@pytest.mark.parametrize(
    "arguments, read", [(dict(vision_feature_layer=-3), 1), (dict(vision_feature_layer=-1), 3)]
)
def test_the_state_that_the_config_names(arguments, read):
    model, twin = apply_vtp(Llava.model(**arguments), layer=1, **DROP), Llava.model(**arguments)
    check(model, twin, Llava.inputs((1, 0, 2)), read=[read])


@pytest.mark.parametrize("given", ["config", "call"])
@pytest.mark.parametrize("layer", [None, -1])
def test_full_keeps_the_class_token_of_every_image(given, layer):
    told = dict(
        vision_feature_select_strategy="full", **({} if layer is None else {"vision_feature_layer": layer})
    )
    config, call = (told, {}) if given == "config" else ({}, told)
    model, twin = apply_vtp(Llava.model(**config), layer=1, **DROP), Llava.model(**config)
    check(
        model, twin, Llava.inputs((1, 0, 2), per_image=37), read=[2 if layer is None else 3], prefix=1, **call
    )


def test_default_given_to_a_full_model():
    told = dict(vision_feature_select_strategy="full")
    model, twin = apply_vtp(Llava.model(**told), layer=1, **DROP), Llava.model(**told)
    check(model, twin, Llava.inputs((1, 2)), read=[2], vision_feature_select_strategy="default")


@pytest.mark.parametrize("layer", [-1, -2, -3, 2, 4])
def test_another_state_in_one_call(layer):
    model, twin = apply_vtp(Llava.model(), layer=1, **DROP), Llava.model()
    check(model, twin, Llava.inputs((1, 0, 2)), read=[layer % 5 - 1], vision_feature_layer=layer)
    check(model, twin, Llava.inputs((2,)), read=[2])  # that call only


@pytest.mark.parametrize(
    "layer, allowed",
    [(-3, "from 0 to 1"), (-4, "from 0 to 0"), (1, "from 0 to 0"), ([-2, -4], "from 0 to 0")],
)
@pytest.mark.parametrize("stage", [2, [0, 2]])
def test_a_state_from_before_the_stage_is_refused_before_any_compute(stage, layer, allowed):
    model, inputs = apply_vtp(Llava.model(), layer=stage, keep_ratio=0.3), Llava.inputs((1, 2))
    for module in (model.get_input_embeddings(), model.model.vision_tower.embeddings):
        module.register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    for call in (model, model.generate):
        with pytest.raises(ValueError, match=f"before the stage at layer 2.*{allowed}"):
            call(**inputs, vision_feature_layer=layer)


def test_a_config_changed_since_is_followed_or_refused():
    """Unpruned states in place of kept ones would fill the placeholders with the wrong features."""
    model, twin, inputs = apply_vtp(Llava.model(), layer=1, **DROP), Llava.model(), Llava.inputs((1, 2))
    model.config.vision_feature_layer = -1
    check(model, twin, inputs, read=[3])
    model.config.vision_feature_layer = -4
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="before the stage at layer 1"):
            call(**inputs)


@pytest.mark.parametrize(
    "read, stage, allowed",
    [
        (-2, 3, "0 to 2"),
        (-1, 4, "0 to 3"),
        (-3, 2, "0 to 1"),
        ([-3, -2], 2, "0 to 1"),
        ([3, -1], [0, 3], "0 to 2"),
    ],
)
def test_stages_that_llava_does_not_read_are_refused(read, stage, allowed):
    model = Llava.model(vision_feature_layer=read)
    before = state(model)
    with pytest.raises(ValueError, match=f"what the language model reads.*choose from {allowed}"):
        apply_vtp(model, layer=stage)
    assert state(model) == before


@pytest.mark.parametrize("read, last", [(-2, 2), (-1, 3), ([-3, -2], 1)])
def test_output_is_the_last_layer_that_is_read(read, last):
    inputs, logits = Llava.inputs((1, 0, 2)), []
    for layer in ("output", last):
        model = apply_vtp(Llava.model(vision_feature_layer=read), layer=layer, keep_ratio=0.3)
        logits.append(model(**inputs).logits)
        assert [s.layer for s in vtp_stats(model).stages] == [last]
    assert torch.equal(*logits)


DEFAULT = [(-2, 10, [2, 3, 5, 7]), ([-3, -2], 9, [2, 4, 5, 7]), (-1, 11, [2, 3, 5, 6, 8])]


@pytest.mark.parametrize("read, last, expected", DEFAULT)
def test_by_default_tokens_leave_at_shares_of_the_depth_that_is_read(read, last, expected):
    model = Llava.model(vision_config=vision_config(layers=12), vision_feature_layer=read)
    apply_vtp(model)(**Llava.inputs((1,)))
    layers = [s.layer for s in vtp_stats(model).stages]
    assert layers == default_layers(last + 1) and layers == expected and layers[-1] < last


@pytest.mark.parametrize("ratio, kept", [(0.3, 11), (0.01, 1), (1.0, 36)])
@pytest.mark.parametrize("strategy, prefix", [("default", 0), ("full", 1)])
def test_tower_projector_and_language_model_run_on_kept_tokens_only(ratio, kept, strategy, prefix):
    model, rows = Llava.model(vision_feature_select_strategy=strategy), {}

    def count(name):
        return lambda module, args, kwargs: rows.setdefault(name, []).append(
            (args[0] if args else kwargs["inputs_embeds"]).shape[1]
        )

    inner = model.model
    for name, module in (
        ("linear_1", inner.multi_modal_projector.linear_1),
        ("linear_2", inner.multi_modal_projector.linear_2),
        ("language model", inner.language_model),
        *((i, layer) for i, layer in enumerate(inner.vision_tower.encoder.layers)),
    ):
        module.register_forward_pre_hook(count(name), with_kwargs=True)
    inputs = Llava.inputs((2,), per_image=36 + prefix)
    n = inputs["input_ids"].shape[1]
    with vtp(model, keep_ratio=ratio, layer=1):
        for call in (model, lambda **k: model.generate(**k, max_new_tokens=3)):
            rows.clear()
            output = call(**inputs)
            assert rows[0] == rows[1] == [37] and rows[2] == rows[3] == [kept + 1]
            assert rows["linear_1"] == rows["linear_2"] == [kept + prefix]
            assert rows["language model"][0] == n - 2 * (36 - kept)
            assert rows["language model"][1:] in ([], [1, 1])
        assert output.shape[1] == n + 3


def test_image_hidden_states_are_the_kept_features():
    model, inputs = apply_vtp(Llava.model(), keep_ratio=0.3), Llava.inputs((1, 0, 2))
    states = image_rows(model(**inputs))
    features = torch.cat(
        list(model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output)
    )
    assert features.shape == (108, 32)  # a row for each placeholder, NaN where one was dropped
    assert states.shape == (33, 32) and torch.equal(states, features[~features.isnan().any(-1)])
    remove_vtp(model)
    assert image_rows(model(**inputs)).shape == (108, 32)
    assert image_rows(model(**Llava.inputs((0, 0)))) is None


def text_config():
    return LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=97
    )


def test_an_unsupported_tower_is_refused_by_name():
    tower = BeitConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=tower, text_config=text_config()))
    before = state(model)
    with pytest.raises(ValueError, match="'beit' cannot be pruned; .*choose from .*'clip_vision_model'"):
        apply_vtp(model)
    assert state(model) == before
