"""One loader of models, and of what makes their inputs, for every family that can be pruned.

Nothing that a folder or a repository holds is executed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as ANSWERING

from ..families.table import can_be_pruned, list_families
from .bench import geometry
from .bench.cli import UsageError, first_sentence
from .classifiers import classifier_class
from .loading import load, without_code
from .processors import load_processor

INSTEAD = "give a folder or a name with the weights, a tokenizer and an image processor"


@dataclass(frozen=True)
class Loaded:
    """A model and what makes its inputs: a processor, or of a model without text an image processor."""

    model: PreTrainedModel
    processor: ProcessorMixin | BaseImageProcessor

    @property
    def image_processor(self) -> BaseImageProcessor:
        return getattr(self.processor, "image_processor", self.processor)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return getattr(self.processor, "tokenizer", None)

    @property
    def model_type(self) -> str:
        return self.model.config.model_type

    @property
    def answers(self) -> bool:
        """Whether the model writes text."""
        return hasattr(self.model, "generate")


def load_config(name: str, weights: str = "pretrained", instead: str = INSTEAD) -> PreTrainedConfig:
    """The config of a model in a folder, the local cache or the Hub.

    With "random" weights it may be a geometry known by name, which needs no download. Raises UsageError for
    what cannot be had.
    """
    if weights == "pretrained" or os.path.isdir(name):
        return load(name, without_code(AutoConfig), instead)
    found = geometry.named_config(name)
    if found is None:
        known = ", ".join(geometry.known())
        raise UsageError(f"no geometry is known for {name}; choose a folder or {known}")
    return found


def auto_class(config: PreTrainedConfig) -> type:
    """The class, or Auto class, of a model of this config: with a language head, or the classifier named."""
    if config.model_type in ANSWERING:
        return AutoModelForImageTextToText
    return classifier_class(config) or AutoModel


def refuse_unprunable(name: str, config: PreTrainedConfig, answers: bool = False) -> None:
    """Raise UsageError unless such a model can be pruned, and with `answers` writes text.

    A language model without a row is built without its weights to see whether it has placeholders.
    """
    known = sorted(family for family in list_families() if family in ANSWERING or not answers)
    if config.model_type in known:
        return
    if config.model_type in ANSWERING:
        with torch.device("meta"):
            if can_be_pruned(auto_class(config).from_config(config, trust_remote_code=False)):
                return
    raise UsageError(
        f"{name} is of model_type {config.model_type!r}; choose a model of one of {', '.join(known)}"
    )


def load_model(
    name: str,
    *,
    config: PreTrainedConfig | None = None,
    weights: str = "pretrained",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """A model in eval mode, with its language head where it has one.

    `weights` is "pretrained" (a folder, the local cache, the Hub) or "random" (the config is enough; seed
    torch before). Raises UsageError for what cannot be had or built.
    """
    config = load_config(name, weights) if config is None else config
    auto = auto_class(config)
    if weights == "pretrained":
        loader = without_code(auto, config=config, dtype=dtype, weights_only=True)
        return load(name, loader, INSTEAD).to(device).eval()
    return random_model(name, config, auto, dtype, device)


def random_model(
    name: str, config: PreTrainedConfig, kind: type, dtype: torch.dtype, device: str | torch.device
) -> PreTrainedModel:
    """A model with random weights, drawn where it shall run, in eval mode; `kind` may be an Auto class.

    Raises UsageError for a config whose numbers do not go together.
    """
    with_auto = hasattr(kind, "from_config")
    make = partial(kind.from_config, trust_remote_code=False) if with_auto else kind._from_config
    try:
        with torch.device(device):
            return make(config, dtype=dtype).eval()
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{name} cannot be built: {first_sentence(error)}") from None


def load_with_processor(
    name: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, answers: bool = False
) -> Loaded:
    """A model that can be pruned, with `answers` one that writes text, and what makes its inputs."""
    config = load_config(name)
    refuse_unprunable(name, config, answers)
    model = load_model(name, config=config, device=device, dtype=dtype)
    return Loaded(model, load_processor(name, config))
