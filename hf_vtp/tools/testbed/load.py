"""Read and write the testbed's models; prompts for them without torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BaseImageProcessor,
    CLIPModel,
    CLIPProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLForConditionalGeneration,
)

from ..bench.cli import UsageError, first_sentence
from ..cards.hub import without_code
from ..image_processors import CLIPImageProcessor, Qwen2VLImageProcessor
from .models import MERGE, PATCH
from .scenes import IMAGE_SIZE
from .tokenizer import IMAGE, VISION_END, VISION_START, make_tokenizer

CLASSES_OF = {  # of the model and its image processor: the oldest AutoImageProcessor wants torchvision
    "clip": (CLIPModel, CLIPImageProcessor),
    "llava": (LlavaForConditionalGeneration, CLIPImageProcessor),
    "qwen2_5_vl": (Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor),
}
SHARD = "1900KB"  # a folder of small files goes where a large file may not
LARGEST_SIDE = 4 * IMAGE_SIZE  # pixels


@dataclass(frozen=True)
class Testbed:
    """One of the models with what makes its inputs."""

    __test__ = False  # pytest: this is no test class

    model: PreTrainedModel
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase

    @property
    def name(self) -> str:
        return self.model.config.model_type


def load(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Testbed:
    """A model of the testbed from its folder, offline; raises UsageError if there is none."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UsageError(f"there is no model in {folder}; give a folder that `hf-vtp train-testbed` wrote")
    kind = without_code(AutoConfig)(folder).model_type
    if kind not in CLASSES_OF:
        raise UsageError(f"{folder} holds a model of type {kind!r}; choose from {', '.join(CLASSES_OF)}")
    model_class, processor_class = CLASSES_OF[kind]
    model = model_class.from_pretrained(folder, dtype=dtype).to(device).eval()
    return Testbed(model, processor_class.from_pretrained(folder), without_code(AutoTokenizer)(folder))


def save(model: PreTrainedModel, folder: Path) -> None:
    """Weights in float16, configs, tokenizer and image processor, each file below 2 MiB."""
    model.set_attn_implementation("sdpa")
    try:
        model.half().save_pretrained(folder, max_shard_size=SHARD)
    except SafetensorError as error:  # a full disk
        raise UsageError(f"{folder} cannot be written ({first_sentence(error)})") from None
    model.float()
    even = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    kind = model.config.model_type
    if kind == "qwen2_5_vl":
        # its processor class wants a video processor and so torchvision: the two parts are saved one by one
        size = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": LARGEST_SIDE**2}
        Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, size=size, **even).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return
    crop = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    images = CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size=crop, **even)
    if kind == "clip":
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


def prompts(testbed: Testbed, images: list[Image.Image], questions: list[str]) -> dict[str, Tensor]:
    """Inputs of `generate` for one question about each image, padded on the left, on the model's device."""
    media = dict(testbed.image_processor(images, return_tensors="pt"))
    if "image_grid_thw" in media:
        counts = (media["image_grid_thw"].prod(-1) // MERGE**2).tolist()
        ends = VISION_START, VISION_END
    else:
        counts = [testbed.model.config.image_seq_length] * len(images)
        ends = "", ""
    texts = [
        f"{ends[0]} {' '.join([IMAGE] * n)} {ends[1]} {question}"
        for n, question in zip(counts, questions, strict=True)
    ]
    text = testbed.tokenizer(texts, padding=True, return_tensors="pt")
    inputs = {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"], **media}
    if "image_grid_thw" in media:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == testbed.model.config.image_token_id).int()
    return {name: value.to(testbed.model.device) for name, value in inputs.items()}
