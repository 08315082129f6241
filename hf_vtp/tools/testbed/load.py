"""Read and write the testbed's models, and make prompts for them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPProcessor, LlavaProcessor, PreTrainedModel

from ..bench.cli import UsageError, first_sentence
from ..image_processors import CLIPImageProcessor, Qwen2VLImageProcessor
from ..models import Loaded, load_config, load_with_processor
from ..prompts import Prompts, plain_template
from .models import MERGE, NEW, PATCH
from .scenes import IMAGE_SIZE
from .tokenizer import IMAGE, make_tokenizer

SHARD = "1900KB"  # a folder of small files goes where a large file may not
LARGEST_SIDE = 4 * IMAGE_SIZE  # pixels


def load(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Loaded:
    """A model of the testbed from its folder, offline; raises UsageError if there is none."""
    if not (Path(folder) / "config.json").is_file():
        raise UsageError(f"there is no model in {folder}; give a folder that `hf-vtp train-testbed` wrote")
    model_type = load_config(str(folder)).model_type
    if model_type not in NEW:
        raise UsageError(f"{folder} holds a model of type {model_type!r}; choose from {', '.join(NEW)}")
    return load_with_processor(str(folder), device, dtype)


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Weights in float16 and configs, each file below 2 MiB; raises UsageError for a full disk."""
    model.set_attn_implementation("sdpa")
    try:
        model.half().save_pretrained(folder, max_shard_size=SHARD)
    except SafetensorError as error:
        raise UsageError(f"{folder} cannot be written ({first_sentence(error)})") from None
    model.float()


def save(model: PreTrainedModel, folder: Path) -> None:
    """Weights, configs, tokenizer and image processor of a model that learned from scenes."""
    save_weights(model, folder)
    even = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    model_type = model.config.model_type
    if model_type == "qwen2_5_vl":
        # its processor class wants a video processor and so torchvision: the two parts are saved one by one
        size = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": LARGEST_SIDE**2}
        Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, size=size, **even).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return
    crop = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=crop, **even)
    if model_type == "clip":
        CLIPProcessor(images, make_tokenizer(add_eos=True)).save_pretrained(folder)
    else:
        LlavaProcessor(
            images,
            make_tokenizer(),
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            image_token=IMAGE,
            num_additional_image_tokens=1,
        ).save_pretrained(folder)


def prompts(testbed: Loaded, images: list[Image.Image], questions: list[str]) -> dict[str, Tensor]:
    """Inputs of `generate` for one question about each image, padded on the left, on the model's device."""
    template = plain_template(testbed.model, testbed.processor)
    return Prompts(testbed.model, testbed.processor, template)(images, questions)[0]
