"""Vision towers as benchmarks load them: every family that is pruned without a language model."""

import pytest
import torch
from evaluation import picture
from families import VISION, classes, made
from models import clip_config
from transformers import (
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    IJepaConfig,
    IJepaModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from hf_vtp.families.table import find_tower
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.bench.geometry import GEOMETRIES, named_config
from hf_vtp.tools.models import random_model
from hf_vtp.tools.towers import images_for, load_tower, processor_of, tower_classes

pytestmark = pytest.mark.models
CPU = torch.device("cpu")
SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
VIT = dict(**SMALL, image_size=24, patch_size=8)
SAVED = [(model_type, found[0]) for model_type in VISION if (found := classes(model_type))]


def loaded(folder, weights="pretrained"):
    return load_tower(str(folder), weights, torch.float32, None, CPU)


@torch.no_grad()
@pytest.mark.parametrize(("model_type", "name"), SAVED)
def test_a_tower_has_its_weights_from_whatever_model_was_saved(model_type, name, tmp_path):
    model, inputs = made(model_type, name)
    model.save_pretrained(tmp_path)
    media = {key: x for key, x in inputs.items() if not key.startswith(("input_ids", "attention_mask"))}
    tower = loaded(tmp_path)
    expected = find_tower(model)(**media).last_hidden_state
    assert torch.equal(tower.model(**media).last_hidden_state, expected)
    assert tower.embed(media).shape[0] == len(expected) and tower.embed(media).dim() == 2


@torch.no_grad()
def test_the_embedding_is_what_is_projected_or_pooled_or_a_token_or_the_mean(tmp_path):
    config = clip_config(layers=2).vision_config
    batch = torch.randn(2, 3, config.image_size, config.image_size)
    images = {"pixel_values": torch.randn(2, 3, 24, 24)}
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "projected")
    CLIPVisionModel(config).save_pretrained(tmp_path / "pooled")
    ViTModel(ViTConfig(**VIT)).save_pretrained(tmp_path / "pooler")
    ViTForImageClassification(ViTConfig(**VIT)).save_pretrained(tmp_path / "classifier")
    IJepaModel(IJepaConfig(**VIT)).save_pretrained(tmp_path / "ijepa")
    for name, inputs, read in (
        ("projected", {"pixel_values": batch}, lambda output: output.image_embeds),
        ("pooled", {"pixel_values": batch}, lambda output: output.pooler_output),
        ("pooler", images, lambda output: output.pooler_output),
        ("classifier", images, lambda output: output.last_hidden_state[:, 0]),
        ("ijepa", images, lambda output: output.last_hidden_state.mean(dim=1)),
    ):
        tower = loaded(tmp_path / name)
        assert torch.equal(tower.embed(inputs), read(tower.model(**inputs))), name


def test_a_checkpoint_without_the_weights_of_its_tower_is_refused(tmp_path):
    model = ViTModel(ViTConfig(**VIT))
    state = {name: x for name, x in model.state_dict().items() if "layers.1" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(UsageError, match="holds no trained layers.1.*, and so no vision tower"):
        loaded(tmp_path)


TOWERS = [  # of every family whose geometry has a name, the first
    next(iter(named)) for model_type, named in GEOMETRIES.items() if model_type in VISION
]


@pytest.mark.parametrize("name", TOWERS)
def test_a_geometry_has_its_tower_and_its_image_processor(name):
    config = named_config(name)
    assert config.to_dict() == named_config(name.rpartition("/")[2]).to_dict()
    model = random_model(name, config, tower_classes(config)[0], torch.float32, "meta")
    made = processor_of(name, "random", config)(images=[picture(0, 60, 50)], return_tensors="pt")
    shape = made["pixel_values"].shape
    patches = (
        config.num_patches if "spatial_shapes" in made else (config.image_size // config.patch_size) ** 2
    )
    assert shape[1:] in ((3, config.image_size, config.image_size), (patches, 3 * config.patch_size**2))
    inputs = {key: x.to("meta") for key, x in made.items() if key != "spatial_shapes"}
    if "spatial_shapes" not in made:
        assert model(**inputs).last_hidden_state.shape[1] >= patches


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("openai/clip-vit-base-patch16", 86.2),
        ("google/siglip-base-patch16-224", 92.9),
        ("google/siglip-so400m-patch14-384", 428.2),
        ("facebook/dinov2-large", 303.3),
        ("facebook/deit-tiny-patch16-224", 5.6),
    ],
)
def test_geometries_have_the_parameters_of_what_they_are_named_after(name, millions):
    config = named_config(name)
    model = random_model(name, config, tower_classes(config)[0], torch.float32, "meta")
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.01)


def test_images_keep_the_size_that_the_checkpoints_processor_makes(tmp_path):
    model, _ = made("dinov2", "Dinov2Model")
    model.save_pretrained(tmp_path)
    config = model.config
    side = config.patch_size * 3
    processor_of(str(tmp_path), "random", config).__class__(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(tmp_path)
    found = images_for(loaded(tmp_path), str(tmp_path), "pretrained", [picture(0), picture(1)])
    assert found["pixel_values"].shape == (2, 3, side, side)
