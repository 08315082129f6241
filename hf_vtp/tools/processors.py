"""Processors of Transformers from their parts: loading them in one piece wants torchvision, for videos."""

from __future__ import annotations

from functools import partial

import torch
import transformers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from .bench.cli import UsageError, first_sentence
from .image_processors import load_image_processor
from .loading import load, without_code

INSTEAD = "give a folder or a name with the weights, a tokenizer and an image processor"


def load_processor(name: str, config: PreTrainedConfig) -> ProcessorMixin | BaseImageProcessor:
    """The processor of a model, or its image processor where the model type takes no text.

    Raises UsageError where the checkpoint lacks a part of it.
    """
    try:
        image_processor = load(name, load_image_processor, INSTEAD)
        kind = processor_class(config)
        if kind is None:
            return image_processor
        tokenizer = load(name, without_code(AutoTokenizer), INSTEAD)
        saved = load(name, partial(_saved, kind), INSTEAD)
        return assemble(config, image_processor, tokenizer, saved)
    except ImportError as error:
        raise UsageError(f"the image processor of {name}: {first_sentence(error)}") from None


def processor_class(config: PreTrainedConfig) -> type[ProcessorMixin] | None:
    """The class that Transformers has for a model of this type; None where it takes no text."""
    name = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    return None if name is None else getattr(transformers, name)


def assemble(
    config: PreTrainedConfig,
    image_processor: BaseImageProcessor,
    tokenizer: PreTrainedTokenizerBase,
    saved: dict | None = None,
) -> ProcessorMixin:
    """The processor of a model of this config, for pictures and texts, with the fields `saved` with it.

    What it lacks is filled in from the config.
    """
    base = processor_class(config)
    # a class of its own only to let the parts for videos and sounds be missing
    kind = type(base.__name__, (base,), {"check_argument_for_proper_class": lambda self, name, part: None})
    own = {"image_processor": image_processor, "tokenizer": tokenizer}
    saved = dict(saved or {})
    processor = kind.from_args_and_dict([own.get(part) for part in base.get_attributes()], dict(saved))
    _complete(processor, config, saved)
    return processor


def _saved(kind: type[ProcessorMixin], name: str, local_files_only: bool) -> dict:
    fields, _ = kind.get_processor_dict(name, local_files_only=local_files_only)
    return fields


def _complete(processor: ProcessorMixin, config: PreTrainedConfig, saved: dict) -> None:
    """Fill in the fields by which image tokens are counted, and placeholders that the tokenizer knows."""
    vocabulary, convert = processor.tokenizer.get_vocab(), processor.tokenizer.convert_ids_to_tokens
    for name in ("image_token", "video_token", "audio_token"):
        own = getattr(processor, name, None)
        if own is not None and own not in vocabulary:
            token_id = getattr(config, f"{name}_id", None)
            setattr(processor, name, None if token_id is None else convert(token_id))
            setattr(processor, f"{name}_id", token_id)
    vision = getattr(config, "vision_config", None)
    for name, source in (("patch_size", vision), ("vision_feature_select_strategy", config)):
        if getattr(processor, name, "") is None:
            setattr(processor, name, getattr(source, name, None))
    if hasattr(processor, "num_additional_image_tokens") and "num_additional_image_tokens" not in saved:
        processor.num_additional_image_tokens = num_prefix_tokens(vision)


@torch.no_grad()
def num_prefix_tokens(vision: PreTrainedConfig) -> int:
    """The number of tokens that a tower puts before those of its patches, by its shapes alone."""
    with torch.device("meta"):
        tower = AutoModel.from_config(vision, trust_remote_code=False).eval()
        pixels = torch.empty(1, vision.num_channels, vision.image_size, vision.image_size)
        found = tower(pixel_values=pixels).last_hidden_state.shape[1]
    return found - (vision.image_size // vision.patch_size) ** 2
