"""The canary: silent on tested releases, once a process on others, and it refuses what went wrong."""

import threading

import pytest
import torch
import transformers
from models import CLIP_CLASSES, clip, clip_inputs, same, state
from vlm import FAMILIES, Llava

from hf_vtp import apply_vtp, canary, list_families, names, verify
from hf_vtp.apply import applied
from hf_vtp.families import placeholder as vlm
from hf_vtp.towers.tower import LayerHooks
from hf_vtp.verifying import tiny

pytestmark = pytest.mark.models
MODELS = {
    **{name: (lambda name=name: clip(name)) for name in CLIP_CLASSES},
    **{name: family.model for name, family in FAMILIES.items()},
    "LlavaModel": lambda: Llava.model().model,
    "Qwen2_5_VLModel": lambda: FAMILIES["qwen2_5_vl"].model().model,
}


@pytest.fixture
def untested(monkeypatch):
    """A Transformers of a later minor than the newest tested, and a process in which no canary sang."""
    monkeypatch.setattr(canary.transformers, "__version__", "5.99.0")  # importing may make the module anew
    monkeypatch.setattr(canary, "_passed", set())


@pytest.fixture
def sung(monkeypatch):
    """The classes of which a tiny model was made."""
    made, make = [], tiny.tiny
    monkeypatch.setattr(tiny, "tiny", lambda kind, config: made.append(kind) or make(kind, config))
    return made


@pytest.mark.parametrize(
    ("version", "tested"),
    [
        ("5.11.9", False),
        ("5.12.0rc1", False),
        ("5.12.0", True),
        ("5.17.3", True),
        ("5.24.0", True),
        ("5.24.7", True),
        ("5.25.0.dev0", False),
        ("5.25.0rc1", False),
        ("5.25.0", False),
        ("6.0.0", False),
        ("4.57.1", False),
    ],
)
def test_the_tested_range_and_patches_of_its_newest_release_are_tested(version, tested, monkeypatch):
    monkeypatch.setattr(canary, "TESTED", ("5.12.0", "5.24.0"))
    assert canary.tested(version) is tested


def test_this_very_release_is_in_the_tested_range():
    assert canary.tested(transformers.__version__)


def test_a_tested_release_costs_nothing(sung):
    apply_vtp(clip("CLIPModel"))
    assert sung == []


@pytest.mark.parametrize("name", MODELS)
def test_it_passes_once_a_process_for_every_class(name, untested, sung):
    model, again = MODELS[name](), MODELS[name]()
    apply_vtp(model)
    apply_vtp(again, keep_ratio=0.5)
    apply_vtp(model, keep_ratio=0.25)
    assert sung == [type(model)] and applied(model).config.keep_ratio == 0.25


def test_every_supported_family_has_a_recipe():
    assert set(list_families()) <= set(tiny.RECIPES)


@pytest.mark.parametrize("name", MODELS)
def test_every_check_applies_to_the_tiny_models_that_it_can_apply_to(name):
    model = MODELS[name]()
    made, inputs = tiny.tiny(type(model), model.config)
    told = dict(layer=0, method="qk_topk", max_new_tokens=2)
    found = {check.name: check.holds for check in verify(made, inputs, **told).checks}
    assert False not in found.values() and found["tower"] and found["ratio 1.0"]
    assert found["prompt"] is (
        True if hasattr(model, "language_model") or hasattr(model, "lm_head") else None
    )
    assert found["generate"] is (True if hasattr(model, "lm_head") else None)
    assert sum(p.numel() for p in made.parameters()) < 30_000


def refused(model, *words):
    """The sentence with which a model is refused, after it was left as it was."""
    before, config = state(model), dict(vars(model.config))
    with pytest.raises(RuntimeError) as caught:
        apply_vtp(model)
    sentence = str(caught.value)
    assert state(model) == before and vars(model.config) == config and applied(model) is None
    assert "\n" not in sentence and all(word in sentence for word in words), sentence
    assert "5.99.0" in sentence and "5.12 to 5.24" in sentence and "transformers~=5.24.0" in sentence
    return sentence


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_that_is_gone_is_refused(family, untested, monkeypatch, sung):
    model = FAMILIES[family].model()
    monkeypatch.setattr(names, "CACHE", ("kv_store", "memory"))
    refused(model, type(model).__name__, "kv_store")
    refused(model, "kv_store")
    assert len(sung) == 2  # a failure is not remembered as anything else
    monkeypatch.undo()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_that_is_looked_for_elsewhere_is_refused_before_a_token_is_wrong(
    family, untested, monkeypatch
):
    model = FAMILIES[family].model()
    other = next(name for name in names.CACHE if name != names.cache_name(model))
    monkeypatch.setattr(vlm, "cache_name", lambda module: other)
    refused(model, "check 'generate'")


def test_a_tower_that_computes_otherwise_is_refused(untested, monkeypatch):
    after = LayerHooks._after

    def broken(self, module, args, output):
        output = after(self, module, args, output)
        return None if output is None else output * 1.001

    monkeypatch.setattr(LayerHooks, "_after", broken)
    refused(clip("CLIPModel"), "check 'ratio 1.0'", "difference")


def test_a_class_that_cannot_be_built_is_refused(untested, monkeypatch):
    monkeypatch.setitem(tiny.RECIPES, "clip", lambda config, numbers: ({"text_config": 7}, {}))
    refused(clip("CLIPModel"), "tiny CLIPModel")


def test_a_pruned_model_stays_pruned_where_the_canary_refuses(untested, monkeypatch):
    model, inputs = clip("CLIPModel"), clip_inputs("CLIPModel")
    apply_vtp(model, keep_ratio=0.5)
    adapter, output = applied(model), model(**inputs)
    monkeypatch.setattr(canary, "_passed", set())
    monkeypatch.setitem(tiny.RECIPES, "clip", lambda config, numbers: ({"text_config": 7}, {}))
    with pytest.raises(RuntimeError):
        apply_vtp(model, keep_ratio=0.25)
    assert applied(model) is adapter and same(model(**inputs), output)


def test_it_works_in_any_surroundings_and_leaves_them_as_they_were(untested, monkeypatch):
    seen, make = [], tiny.tiny

    def spy(*args):
        modes = (torch.is_autocast_enabled("cpu"), torch.is_inference_mode_enabled())
        seen.append((torch.get_default_dtype(), torch.empty(0).device.type, *modes))
        return make(*args)

    monkeypatch.setattr(tiny, "tiny", spy)
    model = Llava.model()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    torch.set_default_dtype(torch.bfloat16)
    torch.set_default_device("meta")
    try:
        with torch.device("meta"), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            apply_vtp(model)
            assert torch.empty(1).device.type == "meta" and torch.is_inference_mode_enabled()
        assert torch.get_default_dtype() is torch.bfloat16 and torch.empty(1).device.type == "meta"
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.rand(2), expected) and torch.is_grad_enabled()
    assert seen == [(torch.float32, "cpu", False, False)]


def test_a_model_on_the_meta_device_is_preceded_by_one_on_the_cpu(untested, sung):
    with torch.device("meta"):
        model = Llava.model()
    apply_vtp(model)
    assert len(sung) == 1 and applied(model) is not None


def test_threads_wait_for_one_canary(untested, sung):
    models, errors = [clip("CLIPModel", seed) for seed in range(4)], []

    def work(model):
        try:
            apply_vtp(model)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(sung) == 1 and all(applied(model) for model in models)


def test_a_subclass_is_preceded_by_the_class_of_transformers(untested, sung):
    class Mine(transformers.CLIPModel):
        def __init__(self, config, more):
            super().__init__(config)

    model = Mine(clip("CLIPModel").config, more=1)
    apply_vtp(model)
    assert sung == [transformers.CLIPModel]


def test_a_family_without_a_recipe_passes(untested, sung, monkeypatch):
    monkeypatch.delitem(tiny.RECIPES, "clip_vision_model")
    model = clip("CLIPVisionModel")
    apply_vtp(model)
    assert len(sung) == 1 and applied(model) is not None


@pytest.mark.parametrize("text", ["mistral", "qwen2", "gemma2"])
def test_the_tiny_llava_has_the_language_model_of_the_one_at_hand(text, untested, sung):
    config = Llava.model().config
    sizes = dict(tiny.packed.TEXT, head_dim=8, vocab_size=97)
    config = type(config)(
        vision_config=config.vision_config, text_config=dict(sizes, model_type=text), image_token_id=90
    )
    model = transformers.LlavaForConditionalGeneration(config)
    apply_vtp(Llava.model())
    apply_vtp(model)
    assert len(sung) == 2  # another language model is other code
    made, _ = tiny.tiny(type(model), model.config)
    assert made.config.text_config.model_type == text


def test_a_tower_that_cannot_be_pruned_is_refused_as_such(untested):
    vision = transformers.BeitConfig(**{**tiny.packed.SIZES, "image_size": 16, "patch_size": 4})
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=dict(tiny.packed.TEXT, model_type="llama"),
        image_token_id=tiny.packed.IMAGE,
    )
    with pytest.raises(ValueError, match="beit.* cannot be pruned"):
        apply_vtp(transformers.LlavaForConditionalGeneration(config))
