"""Models and batches for `hf-vtp verify`."""

from __future__ import annotations

import torch
from PIL import Image
from torch import nn

from .bench import vlm
from .bench.inputs import batches_for
from .models import load_config, load_with_processor
from .prompts import image_inputs, on_device, question_inputs
from .towers import images_for, is_tower, load_tower

VISUAL_TOKENS = 256  # about so many in each random image of a family that takes images of any size
TEXT_TOKENS = 16
SIDE = 224  # of random pictures, which an image processor resizes


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
    """A model of a geometry known by name, or of a folder's config.json, and random images for it.

    Of a model with two towers the vision tower. Raises UsageError for what cannot be had, as for a folder
    without a processor where the config alone does not say what a prompt is made of.
    """
    torch.manual_seed(seed)
    config = load_config(name, "random")
    if is_tower(config):
        tower = load_tower(name, "random", dtype, None, device)
        return tower.model, on_device(tower.model, images_for(tower, name, "random", noise(rows, seed)))
    config = vlm.config_of(name, "random")
    batches = batches_for(config, name)
    model = vlm.load_model(name, config, "random", dtype, None, device)
    batches.look(model)
    return model, batches(model, rows, TEXT_TOKENS, VISUAL_TOKENS if batches.any_size else None, seed)[0]


def noise(count: int, seed: int) -> list[Image.Image]:
    """Random pictures."""
    numbers = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, SIDE, SIDE, 3), generator=numbers, dtype=torch.uint8)
    return [Image.fromarray(one.numpy()) for one in pixels]
