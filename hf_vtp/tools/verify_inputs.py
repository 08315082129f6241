"""Models and batches for `hf-vtp verify`."""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn

from .bench import clip, vlm
from .bench.cli import UsageError
from .bench.geometry import GEOMETRIES
from .models import load_config, load_with_processor
from .prompts import image_inputs, question_inputs

VISUAL_TOKENS = 256  # about so many in each random image of a family that takes images of any size
TEXT_TOKENS = 16


def pictured(name: str, images: list[Image.Image], text: str, dtype, device) -> tuple[nn.Module, dict]:
    """A trained model, and a batch that asks it the same of every picture, one a row.

    Raises UsageError for what cannot be had.
    """
    loaded = load_with_processor(name, device, dtype)
    model = loaded.model
    if loaded.answers:
        return model, question_inputs(model, loaded.processor, images, text)
    inputs = image_inputs(model, loaded.processor, images)
    if loaded.tokenizer is None:
        return model, inputs
    words = loaded.tokenizer([text], padding=True, truncation=True, return_tensors="pt")
    return model, {
        **inputs,
        **{name: words[name].to(model.device) for name in ("input_ids", "attention_mask")},
    }


def random_weights(name: str, rows: int, dtype, device, seed: int) -> tuple[nn.Module, dict]:
    """A model of a geometry known by name, or of a folder's config.json, and random images for it."""
    torch.manual_seed(seed)
    family = load_config(name, "random").model_type
    if family.startswith("clip"):
        model = clip.load_model(name, "random", dtype, None, device)
        size = model.config.image_size
        numbers = torch.Generator().manual_seed(seed)
        images = torch.randn(rows, 3, size, size, generator=numbers)
        return model, {"pixel_values": images.to(device, dtype)}
    if family not in GEOMETRIES:
        raise UsageError(f"no random weights are made for model_type {family!r}; choose a trained model")
    model = vlm.load_model(name, "random", dtype, None, device)
    return model, vlm.inputs_for(model, rows, TEXT_TOKENS, VISUAL_TOKENS, seed)[0]
