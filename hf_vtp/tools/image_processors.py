"""Image processors of Transformers, on PIL where torchvision is missing: the usual names would warn."""

from transformers.utils import is_torchvision_available

if is_torchvision_available():
    from transformers import CLIPImageProcessor, LlavaImageProcessor, Qwen2VLImageProcessor
else:
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
    from transformers import LlavaImageProcessorPil as LlavaImageProcessor
    from transformers import Qwen2VLImageProcessorPil as Qwen2VLImageProcessor

__all__ = ["CLIPImageProcessor", "LlavaImageProcessor", "Qwen2VLImageProcessor"]
