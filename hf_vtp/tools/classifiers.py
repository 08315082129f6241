"""Image classifiers: the class a config names, what their heads read, and the names of their labels."""

from __future__ import annotations

import transformers
from torch import Tensor, cat, nn
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from .bench.cli import UsageError

CLASSIFYING = {  # names of classes; a model_type may have several
    name
    for names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    for name in ([names] if isinstance(names, str) else names)
}


def classifier_class(config: PreTrainedConfig) -> type | None:
    """The class of the classifier that a checkpoint's config names; None where it names none."""
    named = (config.architectures or [""])[0]
    return getattr(transformers, named, None) if named in CLASSIFYING else None


def classifies(model: nn.Module) -> bool:
    return type(model).__name__ in CLASSIFYING


def label_names(config: PreTrainedConfig) -> list[str]:
    """The names of a classifier's labels, by number."""
    return [str(config.id2label.get(i, i)) for i in range(config.num_labels)]


def heads(model: nn.Module) -> list[nn.Module]:
    """The layers of a classifier that read what it pools: one, of DeiT with a teacher two.

    Raises UsageError where there is none.
    """
    labels = model.config.num_labels
    found = [child for child in model.children() if getattr(child, "out_features", None) == labels]
    if not found:
        raise UsageError(f"{type(model).__name__} has no layer with {labels} outputs, one for each label")
    return found


def classify(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What the heads of a classifier read of each image, side by side [B, D], and its logits [B, C]."""
    read: list[Tensor] = []

    def keep(module: nn.Module, args: tuple) -> None:
        read.append(args[0])

    handles = [head.register_forward_pre_hook(keep) for head in heads(model)]
    try:
        logits = model(**inputs).logits
    finally:
        for handle in handles:
            handle.remove()
    return cat(read, dim=-1), logits
