"""Models and batches for `hf-vtp verify`."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn

from ..visualize.preview import Eyes, load_eyes, pixels, prompt
from .bench import clip, vlm
from .bench.cli import UsageError
from .bench.geometry import GEOMETRIES
from .cards.job import model_config

VISUAL_TOKENS = 256  # about so many in each random image of a family that takes images of any size
TEXT_TOKENS = 16


def pictured(name: str, images: list[Image.Image], text: str, dtype, device) -> tuple[nn.Module, dict]:
    """A trained model, and a batch that asks it the same of every picture, one a row.

    Raises UsageError for what cannot be had.
    """
    eyes = load_eyes(name, device, dtype)
    if eyes.answers:
        return eyes.model, together([prompt(eyes, image, text) for image in images], padding_id(eyes))
    inputs = pixels(eyes, images)
    told = {"padding": True, "truncation": True, "return_tensors": "pt"}
    words = eyes.tokenizer([text], **told)
    names = ("input_ids", "attention_mask")
    return eyes.model, {**inputs, **{name: words[name].to(eyes.model.device) for name in names}}


def random_weights(name: str, rows: int, dtype, device, seed: int) -> tuple[nn.Module, dict]:
    """A model of a geometry known by name, or of a folder's config.json, and random images for it."""
    torch.manual_seed(seed)
    family = model_config(name, "random").model_type
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


def together(rows: list[dict[str, Tensor]], padding: int) -> dict[str, Tensor]:
    """Inputs of one row each as those of a batch, padded on the left."""
    shape, batch = [row["input_ids"].shape for row in rows], {}
    longest = max(n for _, n in shape)
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name != "pixel_values" and values[0].shape == shape[0]:
            fill = padding if name == "input_ids" else 0
            widths = [longest - x.shape[1] for x in values]
            pad = torch.nn.functional.pad
            values = [pad(x, (width, 0), value=fill) for x, width in zip(values, widths, strict=True)]
        batch[name] = torch.cat(values)
    return batch


def padding_id(eyes: Eyes) -> int:
    """The id that fills up short rows; masked, so that any will do."""
    found = eyes.tokenizer.pad_token_id
    return 0 if found is None else found
