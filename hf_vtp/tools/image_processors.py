"""Image processors of Transformers, on PIL where torchvision is missing: the usual names would warn."""

from __future__ import annotations

import transformers
from transformers import AutoImageProcessor, BaseImageProcessor
from transformers.utils import is_torchvision_available

from .bench.cli import UsageError

if is_torchvision_available():
    from transformers import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor
else:
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
    from transformers import LlavaImageProcessorPil as LlavaImageProcessor
    from transformers import Qwen2VLImageProcessorPil as Qwen2VLImageProcessor

__all__ = ["CLIPImageProcessor", "LlavaImageProcessor", "Qwen2VLImageProcessor", "load_image_processor"]


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
    known = [base] if is_torchvision_available() else [f"{base}Pil", base]
    kind = next((getattr(transformers, name) for name in known if hasattr(transformers, name)), None)
    if kind is None or not base.endswith("ImageProcessor"):
        raise UsageError(
            f"{name} has an image processor of type {named}, which Transformers does not have; give a model "
            "with one of Transformers' own"
        )
    return kind.from_pretrained(name, local_files_only=local_files_only)
