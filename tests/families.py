"""A tiny model of every supported family and of every class of it that is tested, for tests over the rows."""

import importlib
from inspect import signature

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from hf_vtp import list_families
from hf_vtp.families.vision import HEADS
from hf_vtp.verifying.tiny import tiny

VISION = [name for name, row in list_families().items() if row["kind"] == "vision"]
LANGUAGE = [name for name, row in list_families().items() if row["kind"] == "language"]


def module_of(model_type):
    """The modelling code of a family."""
    name = CONFIG_MAPPING[model_type].__module__.replace("configuration_", "modeling_")
    return importlib.import_module(name)


def classes(model_type):
    """Names of the classes of a family that are tested: with its heads, or with its language head."""
    if model_type in LANGUAGE:
        return [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]]
    if model_type not in CONFIG_MAPPING:
        return []
    # of the module, since AutoModel does not know all of them
    return [
        name
        for name, kind in vars(module_of(model_type)).items()
        if name.endswith(HEADS)
        and not name.endswith("PreTrainedModel")
        and isinstance(kind, type)
        and issubclass(kind, PreTrainedModel)
        and kind.config_class is CONFIG_MAPPING[model_type]
        and "pixel_values" in signature(kind.forward).parameters
    ]


def made(model_type, name, **changes):
    """A tiny model of the class and inputs for it, the same each time."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **changes)
    return tiny(getattr(module_of(model_type), name), config)


MODELS = [(model_type, name) for model_type in list_families() for name in classes(model_type)]
IDS = [f"{model_type}-{name}" for model_type, name in MODELS]
