"""Image processors of Transformers, on PIL where torchvision is missing: the usual names would warn."""

from __future__ import annotations

import transformers
from transformers import AutoImageProcessor, BaseImageProcessor, PreTrainedConfig
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES as BY_MODEL_TYPE
from transformers.utils import is_torchvision_available

from .bench.cli import UsageError

if is_torchvision_available():
    from transformers import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor
else:
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
    from transformers import LlavaImageProcessorPil as LlavaImageProcessor
    from transformers import Qwen2VLImageProcessorPil as Qwen2VLImageProcessor

__all__ = [
    "CLIPImageProcessor",
    "LlavaImageProcessor",
    "Qwen2VLImageProcessor",
    "default_image_processor",
    "load_image_processor",
    "square",
]


def load_image_processor(name: str, local_files_only: bool = False) -> BaseImageProcessor:
    """The image processor of a checkpoint, of the class that its files name; no code of its own is run.

    Not by the Auto class where it can be helped: that of Transformers 5.12 wants torchvision. Raises
    UsageError for a class that Transformers does not have.
    """
    saved, _ = BaseImageProcessor.get_image_processor_dict(name, local_files_only=local_files_only)
    old = str(saved.get("feature_extractor_type", "")).replace("FeatureExtractor", "ImageProcessor")
    named = str(saved.get("image_processor_type") or old)
    if not named:
        auto = AutoImageProcessor.from_pretrained
        return auto(name, local_files_only=local_files_only, trust_remote_code=False)
    base = named.removesuffix("Pil").removesuffix("Fast")
    kind = by_name(base)
    if kind is None or not base.endswith("ImageProcessor"):
        raise UsageError(
            f"{name} has an image processor of type {named}, which Transformers does not have; give a model "
            "with one of Transformers' own"
        )
    return kind.from_pretrained(name, local_files_only=local_files_only)


def by_name(base: str) -> type[BaseImageProcessor] | None:
    """The image processor of that name that runs here best; None where Transformers has none."""
    known = [base] if is_torchvision_available() else [f"{base}Pil", base]
    return next((getattr(transformers, name) for name in known if hasattr(transformers, name)), None)


def default_image_processor(config: PreTrainedConfig, model_types: list[str]) -> BaseImageProcessor:
    """The image processor that Transformers has for the first of these model_types, at a tower's size.

    CLIP's where there is none, or none that runs here.
    """
    names = [BY_MODEL_TYPE[name]["torchvision"] for name in model_types if name in BY_MODEL_TYPE]
    for base in (*names, "CLIPImageProcessor"):
        try:
            kind = by_name(base)
            plain = kind()
        except ImportError:  # it wants torchvision
            continue
        if hasattr(plain, "max_num_patches"):
            return kind(patch_size=config.patch_size, max_num_patches=config.num_patches)
        return kind(**square(plain, config.image_size))


def square(image_processor: BaseImageProcessor, side: int | tuple[int, int]) -> dict:
    """Arguments of an image processor that have it make squares of that side in pixels."""
    height, width = (side, side) if isinstance(side, int) else side
    edges = {"height": height, "width": width}
    if "shortest_edge" in dict(image_processor.size):
        return {"size": {"shortest_edge": max(height, width)}, "crop_size": edges}
    crops = getattr(image_processor, "do_center_crop", False)
    return {"size": edges, **({"crop_size": edges} if crops else {})}
