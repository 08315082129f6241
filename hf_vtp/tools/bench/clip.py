"""CLIP's vision side for a benchmark: a model, its pixels and its image embeddings."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from ..loading import load
from . import cli
from .cli import UsageError, first_sentence

INSTEAD = "give --weights random for speed alone, or a local folder with --model"


def geometry(hidden_size: int, layers: int, patch_size: int, image_size: int, projection_dim: int) -> dict:
    """Arguments of CLIPVisionConfig; in all of these heads are 64 wide and MLPs four times the width."""
    return {
        "hidden_size": hidden_size,
        "intermediate_size": 4 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden_size // 64,
        "patch_size": patch_size,
        "image_size": image_size,
        "projection_dim": projection_dim,
    }


GEOMETRIES = {  # so that random weights need no download
    "openai/clip-vit-base-patch32": geometry(768, 12, 32, 224, 512),
    "openai/clip-vit-base-patch16": geometry(768, 12, 16, 224, 512),
    "openai/clip-vit-large-patch14": geometry(1024, 24, 14, 224, 768),
    "openai/clip-vit-large-patch14-336": geometry(1024, 24, 14, 336, 768),
}


def _of_clip(raw: dict) -> CLIPVisionConfig:
    config = CLIPConfig.from_dict(raw)
    config.vision_config.projection_dim = config.projection_dim  # CLIPModel projects by the outer one
    return config.vision_config


CONFIGS = {"clip": _of_clip, "clip_vision_model": CLIPVisionConfig.from_dict}


def load_model(
    name: str, weights: str, dtype: torch.dtype, attention: str | None, device: torch.device
) -> CLIPVisionModelWithProjection:
    """The vision side in eval mode; raises UsageError for what cannot be had, or is no CLIP.

    `weights` is "pretrained" (a folder, the local cache, the Hub) or "random" (no download: a geometry by
    name or a folder's config.json; seed torch before).
    """
    if weights == "pretrained":
        model = load(name, partial(_pretrained, dtype=dtype), INSTEAD)
    else:
        model = _random(name).to(dtype)
    if attention:
        cli.set_attention(model, attention, dtype, device)
    return model.to(device).eval()


def _random(name: str) -> CLIPVisionModelWithProjection:
    if name in GEOMETRIES:
        config = CLIPVisionConfig(**GEOMETRIES[name])
    elif Path(name).is_dir():
        config = load(name, _config, INSTEAD)
    else:
        raise UsageError(f"no geometry is known for {name}; choose a folder or {', '.join(GEOMETRIES)}")
    try:
        return CLIPVisionModelWithProjection(config)
    except (ValueError, RuntimeError) as error:  # numbers that do not go together
        raise UsageError(f"{name} cannot be built: {first_sentence(error)}") from None


def _config(name: str, local_files_only: bool) -> CLIPVisionConfig:
    raw, _ = CLIPConfig.get_config_dict(name, local_files_only=local_files_only)
    model_type = raw.get("model_type")
    if model_type is None:
        raise UsageError(f"{name} has no config.json that names a model_type; {INSTEAD}")
    if model_type not in CONFIGS:
        raise UsageError(
            f"{name} is of model_type {model_type!r}, which this benchmark does not measure; choose one of "
            f"model_type {' or '.join(CONFIGS)}"
        )
    return CONFIGS[model_type](raw)


def _pretrained(name: str, local_files_only: bool, dtype: torch.dtype) -> CLIPVisionModelWithProjection:
    config = _config(name, local_files_only)
    model, report = CLIPVisionModelWithProjection.from_pretrained(
        name, config=config, dtype=dtype, local_files_only=local_files_only, output_loading_info=True
    )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:3])
        raise UsageError(f"{name} holds no trained {missing}, and so no image embedding; {INSTEAD}")
    return model


def pixels(
    model: CLIPVisionModelWithProjection, name: str, weights: str, images: Iterable[Image.Image]
) -> Tensor:
    """Preprocessed images, [n, 3, S, S] on the CPU in the model's dtype.

    By the checkpoint's own image processor where it has one, else as CLIP does it: the shorter side to S, the
    centre, CLIP's mean and deviation. Raises UsageError if there is no image, or if the processor makes
    another size than the model takes.
    """
    size = model.config.image_size
    processor = image_processor(name, weights, size)
    values = [
        processor(images=image, return_tensors="pt")["pixel_values"][0].to(model.dtype) for image in images
    ]
    if not values:
        raise UsageError("no image is left to measure on; give a folder of images with --images")
    if any(value.shape != (3, size, size) for value in values):
        raise UsageError(f"the image processor of {name} does not make the {size}x{size} its model takes")
    return torch.stack(values)


def image_processor(name: str, weights: str, size: int):
    """The checkpoint's own, or CLIP's for images of that size; raises UsageError if its own is broken."""
    # Imported here for what it costs. (The Auto class of 5.12 fails without torchvision.)
    from ..image_processors import CLIPImageProcessor

    own = Path(name).is_dir() and (Path(name) / "preprocessor_config.json").is_file()
    if own or (weights == "pretrained" and not Path(name).is_dir()):
        try:
            return load(name, CLIPImageProcessor.from_pretrained, INSTEAD)
        except UsageError as error:
            if own:
                raise
            print(f"CLIP's standard preprocessing is used: {error}", file=sys.stderr)
    square = {"height": size, "width": size}
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size=square)
