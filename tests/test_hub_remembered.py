"""`model.config.vtp_config`: written, removed, saved with the model, seen by no other model."""

import copy
import json

import pytest
import torch
from models import (
    CLIP_CLASSES,
    clip,
    clip_config,
    clip_inputs,
    clip_vision,
    pixels,
    same,
    state,
    vision_config,
)
from qwen import Qwen
from transformers import AutoConfig, AutoModel, CLIPModel, CLIPVisionModel
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, remove_vtp, vtp
from hf_vtp.apply import applied
from hf_vtp.model_config import num_layers

FAMILIES = {
    **{name: (lambda name=name: clip(name)) for name in CLIP_CLASSES},
    "Llava": Llava.model,
    "Qwen": Qwen.model,
}


def holders(model, config):
    return {
        name for name, module in model.named_modules() for value in vars(module).values() if value is config
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_apply_writes_it_and_remove_puts_the_very_config_back(name):
    model = FAMILIES[name]()
    config, before, seen, held = model.config, copy.deepcopy(model.config.to_dict()), state(model), None
    held = holders(model, config)
    apply_vtp(model, keep_ratio=0.4, method="uniform")
    values = model.config.vtp_config
    assert values["keep_ratio"] == 0.4 and values["method"] == "uniform"
    assert values["model_type"] == config.model_type
    assert values["num_layers"] == len(applied(model).tower.layer_hooks) == num_layers(model)
    assert VTPConfig(**values).keep_ratio == 0.4 and type(model.config) is type(config)
    assert not hasattr(config, "vtp_config") and config.to_dict() == before
    assert holders(model, model.config) == held and not holders(model, config)
    remove_vtp(model)
    assert model.config is config and config.to_dict() == before and holders(model, config) == held
    assert state(model) == seen


@pytest.mark.parametrize("name", CLIP_CLASSES)
def test_a_saved_model_remembers(name, tmp_path):
    model, inputs = clip(name), clip_inputs(name)
    unpruned = model(**inputs)
    apply_vtp(model, keep_ratio=0.4, layer=1, method="random", scorer_options={"seed": 5})
    pruned = model(**inputs)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["vtp_config"] == model.config.vtp_config
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert same(loaded(**inputs), unpruned)  # Transformers takes no notice of it
    assert not same(loaded(**inputs), pruned)
    apply_vtp(loaded)
    assert same(loaded(**inputs), pruned)
    assert applied(loaded).config.scorer_options == {"seed": 5}
    remove_vtp(loaded)
    assert same(loaded(**inputs), unpruned) and not hasattr(loaded.config, "vtp_config")
    loaded.save_pretrained(tmp_path)
    assert "vtp_config" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("family", [Llava, Qwen], ids=lambda family: family.__name__)
def test_a_saved_language_model_remembers(family, tmp_path):
    model, inputs = family.model(), family.inputs((1, 2))
    apply_vtp(model, keep_ratio=0.5, method="uniform")
    pruned = model(**inputs).logits
    model.save_pretrained(tmp_path)
    remove_vtp(model)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert not torch.equal(loaded(**inputs).logits, pruned)
    apply_vtp(loaded)
    assert torch.equal(loaded(**inputs).logits, pruned)


def test_it_does_not_leak_to_another_model_of_the_same_config_object():
    config = clip_config()
    one, other = CLIPModel(config), CLIPModel(config)
    apply_vtp(one, keep_ratio=0.5)
    third = CLIPModel(config)
    assert hasattr(one.config, "vtp_config")
    assert not any(hasattr(model.config, "vtp_config") for model in (other, third))
    assert other.config is config is third.config
    assert applied(apply_vtp(other)).config == VTPConfig()  # nothing to pick up
    remove_vtp(other)
    assert one.config.vtp_config["keep_ratio"] == 0.5


def test_what_a_model_made_from_a_pruned_models_config_does_is_its_own():
    one = apply_vtp(CLIPVisionModel(vision_config()), keep_ratio=0.5)
    other = CLIPVisionModel(one.config)
    remove_vtp(other)
    assert not hasattr(other.config, "vtp_config") and one.config.vtp_config["keep_ratio"] == 0.5
    apply_vtp(other, keep_ratio=0.3)
    remove_vtp(one)
    assert other.config.vtp_config["keep_ratio"] == 0.3 and not hasattr(one.config, "vtp_config")


def test_without_arguments_it_is_picked_up_and_with_any_it_is_not():
    model = clip_vision()
    apply_vtp(model, keep_ratio=0.3, layer=2, method="random")
    apply_vtp(model)
    assert (applied(model).config.keep_ratio, applied(model).config.method) == (0.3, "random")
    apply_vtp(model, keep_ratio=0.5)
    assert (applied(model).config.keep_ratio, applied(model).config.method) == (0.5, "vtp")
    assert model.config.vtp_config.keys() == {
        *("keep_ratio", "method", "model_type", "num_layers", "vtp_version")
    }


def test_blocks_nest():
    model = clip_vision()
    original = model.config
    apply_vtp(model, keep_ratio=0.6)
    outer = model.config
    with vtp(model, keep_ratio=0.4):
        assert model.config.vtp_config["keep_ratio"] == 0.4
        with vtp(model):
            assert model.config.vtp_config["keep_ratio"] == 0.4
        model.config.probe = 7
    assert model.config is outer and outer.vtp_config["keep_ratio"] == 0.6 and outer.probe == 7
    remove_vtp(model)
    assert model.config is original and original.probe == 7 and not hasattr(original, "vtp_config")


def test_a_block_leaves_what_a_model_was_loaded_with(tmp_path):
    apply_vtp(clip_vision(), keep_ratio=0.3).save_pretrained(tmp_path)
    model = CLIPVisionModel.from_pretrained(tmp_path)
    config = model.config
    with vtp(model, keep_ratio=0.9):
        assert model.config.vtp_config["keep_ratio"] == 0.9
    assert model.config is config and config.vtp_config["keep_ratio"] == 0.3
    remove_vtp(model)  # which forgets, pruned or not
    assert not hasattr(model.config, "vtp_config") and holders(model, model.config) >= {"", "encoder"}


def test_a_deep_copy_carries_its_own():
    model = apply_vtp(clip_vision(), keep_ratio=0.5)
    twin = copy.deepcopy(model)
    remove_vtp(model)
    assert twin.config.vtp_config["keep_ratio"] == 0.5 and not hasattr(model.config, "vtp_config")
    assert holders(twin, twin.config) == holders(model, model.config)
    remove_vtp(twin)
    assert not hasattr(twin.config, "vtp_config") and twin.config is not model.config


def test_what_is_set_on_the_config_meanwhile_stays():
    model = clip_vision()
    config = model.config
    config.stale = 1
    apply_vtp(model, keep_ratio=0.5)
    model.set_attn_implementation("eager")
    model.config.note, model.config.output_attentions = "mine", True
    del model.config.stale
    layers = model.encoder.layers
    assert all(layer.self_attn.config._attn_implementation == "eager" for layer in layers)
    remove_vtp(model)
    assert model.config is config and config._attn_implementation == "eager"
    assert config.note == "mine" and config.output_attentions and not hasattr(config, "stale")
    assert len(model(pixels()).attentions) == len(layers)


@pytest.mark.parametrize("family", [Llava, Qwen], ids=lambda family: family.__name__)
def test_the_attention_of_a_language_model_is_set_through_its_config(family):
    model, inputs = family.model(), family.inputs((1,))
    apply_vtp(model, keep_ratio=0.5, method="uniform")
    model.set_attn_implementation("eager")
    twin = apply_vtp(family.model(), keep_ratio=0.5, method="uniform")
    assert model.model.config._attn_implementation == "eager" != twin.model.config._attn_implementation
    torch.testing.assert_close(model(**inputs).logits, twin(**inputs).logits, atol=1e-5, rtol=1e-5)
    remove_vtp(model)
    assert model.config._attn_implementation == "eager"


def test_a_config_that_was_replaced_meanwhile_stays():
    model = apply_vtp(clip_vision(), keep_ratio=0.5)
    mine = model.config = copy.deepcopy(model.config)
    remove_vtp(model)
    assert model.config is mine and not hasattr(mine, "vtp_config")


def test_a_config_of_its_own_for_another_family_or_depth_is_refused(tmp_path):
    for source, target, says in [
        (clip("CLIPModel"), Llava.model(), "made for model_type 'clip', and this model's is 'llava'"),
        (Llava.model(), Qwen.model(), "made for model_type 'llava', and this model's is 'qwen2_5_vl'"),
        (clip_vision(layers=6), clip_vision(layers=4), "encoder of 6 layers, and this one has 4"),
    ]:
        values = apply_vtp(source, keep_ratio=0.5).config.vtp_config
        VTPConfig(**values).save_pretrained(tmp_path)
        before, config = state(target), target.config
        for given in (str(tmp_path), tmp_path, VTPConfig(**values)):
            with pytest.raises(ValueError, match=says) as error:
                apply_vtp(target, given)
            assert "\n" not in str(error.value)
        target.config.vtp_config = values
        with pytest.raises(ValueError, match=says):
            apply_vtp(target)
        assert target.config is config and state(target) == before
        del target.config.vtp_config
    apply_vtp(target, VTPConfig(**values), num_layers=None)  # on one's own account
    assert target.config.vtp_config["num_layers"] == 4


def test_a_clip_config_serves_every_clip_class():
    values = apply_vtp(clip("CLIPModel"), keep_ratio=0.5).config.vtp_config
    model = apply_vtp(clip_vision(), VTPConfig(**values))
    assert model.config.vtp_config["model_type"] == "clip_vision_model"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ("vtp", "must hold an object"),
        ([1], "must hold an object"),
        ({"method": "vpt"}, "unknown method 'vpt'"),
        ({"keep_ratio": "half"}, "keep_ratio must be a number"),
        ({"model_type": ["clip"]}, "model_type must be a name"),
        ({"num_layers": 1e9}, "num_layers must be an int"),
    ],
)
def test_a_broken_one_is_one_clear_error(values, says):
    model = clip_vision()
    model.config.vtp_config = values
    with pytest.raises(ValueError, match=says) as error:
        apply_vtp(model)
    assert str(error.value).startswith("vtp_config in the config of this model")
    apply_vtp(model, keep_ratio=0.5)  # says what it wants, and so does not read it
    assert model.config.vtp_config["keep_ratio"] == 0.5


def nested(depth):
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"keep_ratio": 0.5, **{f"field_{i}": i for i in range(10_000)}}, "is larger than 65536 bytes"),
        ({"keep_ratio": [0.5] * 100_000}, "is larger than 65536 bytes"),
        ({"scorer_options": {"power": nested(9)}}, "nested deeper than 8 levels"),
        ({"method": "x" * 300}, "a text of 300 characters"),
        ({"min_keep": 10**20}, "a number of 21 digits"),
        ({"keep_ratio": float("nan")}, "NaN is no number in JSON"),
        ({"keep_ratio": {1, 2}}, "not what JSON can hold"),
    ],
)
def test_one_in_config_json_has_the_bounds_of_the_file(values, says, tmp_path):
    model = clip_vision()
    model.config.vtp_config = values
    if not isinstance(values.get("keep_ratio"), set):
        model.config.save_pretrained(tmp_path)
        model.config = type(model.config).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=says) as error:
        apply_vtp(model)
    assert (
        str(error.value).startswith("vtp_config in the config of this model") and len(str(error.value)) < 400
    )
    apply_vtp(model, keep_ratio=0.5)


def test_the_models_name_is_written_and_a_path_is_not(tmp_path, monkeypatch):
    model = clip_vision()
    for name, kept in [("openai/clip", "openai/clip"), (str(tmp_path), None), ("./here", None), ("", None)]:
        model.config._name_or_path = name
        apply_vtp(model, keep_ratio=0.5)
        assert model.config.vtp_config.get("base_model_name_or_path") == kept
        remove_vtp(model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai" / "clip").mkdir(parents=True)
    model.config._name_or_path = "openai/clip"
    assert "base_model_name_or_path" not in apply_vtp(model, keep_ratio=0.5).config.vtp_config


def test_a_folder_is_a_config_and_arguments_override_it(tmp_path):
    VTPConfig(keep_ratio=0.3, method="random", layer=2).save_pretrained(tmp_path)
    model = apply_vtp(clip_vision(), str(tmp_path), keep_ratio=0.6)
    assert applied(model).config == VTPConfig(keep_ratio=0.6, method="random", layer=2)
    with vtp(model, tmp_path):
        assert applied(model).config.keep_ratio == 0.3
    with pytest.raises(ValueError, match="neither a folder nor a name on the Hub"):
        apply_vtp(model, "no such/place/at all")
    assert applied(model).config.keep_ratio == 0.6


def test_an_auto_class_and_the_config_alone_see_it(tmp_path):
    apply_vtp(clip("CLIPModel"), keep_ratio=0.3).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).vtp_config["keep_ratio"] == 0.3
    assert applied(apply_vtp(AutoModel.from_pretrained(tmp_path))).config.keep_ratio == 0.3
