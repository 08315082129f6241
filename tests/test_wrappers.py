"""What is given to apply_vtp instead of a model: one sentence that names what to pass."""

import pytest
import torch
from lora import with_lora
from models import clip, clip_config, clip_vision, pixels, vision_config
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)
from transformers.pipelines import ImageFeatureExtractionPipeline
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, remove_vtp, vtp, vtp_stats

pytestmark = pytest.mark.models


class Around(nn.Module):
    """A user's module around a model: under one name, and with other things beside it."""

    def __init__(self, model, name="model", **others):
        super().__init__()
        self.head = nn.Linear(2, 2)
        setattr(self, name, model)
        for other, value in others.items():
            setattr(self, other, value)


class SentenceTransformer(nn.Sequential):
    """The structure of sentence-transformers' class: modules in a row, the first with an `auto_model`."""


class Trainer:
    def __init__(self, model):
        self.args, self.model = None, model


class Holder(PreTrainedModel):
    """A model of a user's own, with the config of the one inside."""

    config_class, _supports_sdpa = Llava.model().config_class, True

    def __init__(self, model):
        super().__init__(model.config)
        self.llava = model


class Own(LlavaForConditionalGeneration):
    """A subclass is a model itself."""


def pipeline():
    return ImageFeatureExtractionPipeline(model=clip_vision(), image_processor=CLIPImageProcessor())


def traced():
    return torch.jit.trace(clip_vision(layers=1), pixels(1), strict=False)


def dual_encoder():
    vision, text = vision_config(), clip_config().text_config
    return VisionTextDualEncoderModel(VisionTextDualEncoderConfig.from_vision_text_configs(vision, text))


INSTEAD = [
    (pipeline, "ImageFeatureExtractionPipeline; pass pipe.model"),
    (lambda: Trainer(clip("CLIPModel")), "Trainer; pass object.model"),
    (lambda: Trainer(Around(Llava.model(), "llava")), "Trainer; pass object.model.llava"),
    (
        lambda: SentenceTransformer(Around(clip("CLIPModel"), "auto_model"), nn.Linear(2, 2)),
        "SentenceTransformer around one; pass st[0].auto_model",
    ),
    (lambda: Around(clip("CLIPModel")), "Around around one; pass wrapper.model"),
    (lambda: Around(with_lora(Llava.model())), "Around around one; pass wrapper.model"),
    (lambda: Around(nn.ModuleList([nn.Identity(), clip_vision()]), "parts"), "pass wrapper.parts[1]"),
    (lambda: Around(Around(clip_vision(), "vision")), "pass wrapper.model.vision"),
    (lambda: nn.DataParallel(Around(clip_vision(), "vision")), "pass wrapper.module.vision"),
    (lambda: torch.compile(Around(clip_vision())), "pass wrapper._orig_mod.model"),
    (lambda: (lambda model: Around(model, config=model.config))(Llava.model()), "pass wrapper.model"),
    (lambda: Holder(Llava.model()), "Holder around one; pass wrapper.llava"),
    (
        traced,
        "not traced code (TopLevelTracedModule), which no hook reaches; prune the model it was made from",
    ),
    (lambda: torch.compile(clip_vision().forward), "pass the CLIPVisionModel it belongs to"),
    (lambda: clip_vision().forward, "pass the CLIPVisionModel it belongs to"),
    (CLIPImageProcessor, "not an object of type CLIPImageProcessor"),
    (lambda: "openai/clip-vit-base-patch32", "not its name 'openai/clip-vit-base-patch32'; load it first"),
    (lambda: None, "not None"),
    (lambda: [clip_vision()], "not a list; prune each model by itself"),
    (lambda: {"model": clip_vision()}, "not a dict; prune each model by itself"),
    (lambda: CLIPModel, "not the class CLIPModel; make a model of it first"),
    (clip_config, "not a config (CLIPConfig); the model comes first"),
    (VTPConfig, "not a config (VTPConfig); the model comes first"),
    (lambda: len, "not an object of type builtin_function_or_method"),
]


@pytest.mark.parametrize(("thing", "says"), INSTEAD, ids=[says[-40:] for _, says in INSTEAD])
def test_what_is_no_model_is_refused_with_what_to_pass(thing, says):
    thing = thing()
    for call in (apply_vtp, remove_vtp, vtp_stats, lambda x: vtp(x, keep_ratio=0.5).__enter__()):
        with pytest.raises((TypeError, ValueError)) as error:
            call(thing)
        text = str(error.value)
        assert says in text and text.startswith("pruning takes a Transformers model, not")
        assert "\n" not in text and ". " not in text and len(text) < 250


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m)), with_lora]
)
def test_wrappers_that_only_pass_on_work(wrap):
    model = Llava.model()
    wrapped = wrap(model)
    assert apply_vtp(wrapped, keep_ratio=0.5) is wrapped and "_vtp" in vars(model)
    with torch.no_grad():
        model(**Llava.inputs((1,)))
    assert vtp_stats(wrapped).num_kept == [18]
    assert remove_vtp(wrapped) is wrapped and "_vtp" not in vars(model)


def test_what_a_sentence_names_can_be_pruned():
    st = SentenceTransformer(Around(clip("CLIPModel"), "auto_model"), nn.Linear(2, 2))
    pipe, wrapper = pipeline(), Around(Around(clip_vision(), "vision"))
    for model in (st[0].auto_model, pipe.model, wrapper.model.vision):
        assert "_vtp" in vars(apply_vtp(model, keep_ratio=0.5))


def test_a_subclass_is_a_model_itself():
    assert "_vtp" in vars(apply_vtp(Own(Llava.model().config), keep_ratio=0.5))


def test_a_family_that_is_not_supported_names_those_that_are_and_no_part_of_it():
    """A tower inside it would be pruned without what reads it knowing."""
    for model in (dual_encoder(), Around(dual_encoder()), nn.Linear(2, 2)):
        with pytest.raises(ValueError, match="cannot be pruned; choose .* whose model_type is one of"):
            apply_vtp(model)
        assert remove_vtp(model) is model
