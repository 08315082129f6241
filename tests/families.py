"""A tiny model of every supported family and of every class of it that is tested, for tests over the rows."""

import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from hf_vtp import list_families
from hf_vtp.verifying.tiny import tiny

VISION = [name for name, row in list_families().items() if row["kind"] == "vision"]
LANGUAGE = [name for name, row in list_families().items() if row["kind"] == "language"]


def classes(model_type):
    """Names of the classes of a family that are tested: with its heads, or with its language head."""
    if model_type in LANGUAGE:
        return [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]]
    found = []
    for names in (MODEL_MAPPING_NAMES, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES):
        name = names.get(model_type, ())
        found += [name] if isinstance(name, str) else list(name)
    return [name for name in found if hasattr(transformers, name)]


def made(model_type, name, **changes):
    """A tiny model of the class and inputs for it, the same each time."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **changes)
    return tiny(getattr(transformers, name), config)


MODELS = [(model_type, name) for model_type in list_families() for name in classes(model_type)]
IDS = [f"{model_type}-{name}" for model_type, name in MODELS]
