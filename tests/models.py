"""Tiny models with random weights, built in code."""

import torch
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from hf_vtp import list_methods

IMAGE_METHODS = [name for name, row in list_methods().items() if "text" not in row["needs"]]
DROPPING = [name for name in IMAGE_METHODS if list_methods()[name]["merger"] == "drop"]
VISION = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, image_size=24, patch_size=4)


def vision_config(layers=4, **changes):
    return CLIPVisionConfig(num_hidden_layers=layers, projection_dim=16, **{**VISION, **changes})


def clip_config(layers=4, **changes):
    text = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=99,
        max_position_embeddings=16,
        eos_token_id=98,
        projection_dim=16,
    )
    # as dicts: both towers' configs as CLIPConfig itself would make them
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision_config(layers, **changes).to_dict(),
        projection_dim=16,
    )
    config.num_labels = 5
    return config


def sharpen(model, factor=4.0):
    """Scale the projections up: freshly initialised attention is uniform, and would hide a wrong mask."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "qkv.weight")):
                parameter.mul_(factor)
            if name.endswith("class_embedding") or "position_embedding" in name:
                parameter.normal_(std=0.5)
    return model


def clip_vision(layers=4, seed=0, implementation="sdpa", **changes):
    torch.manual_seed(seed)
    config = vision_config(layers, **changes)
    return sharpen(CLIPVisionModel._from_config(config, attn_implementation=implementation)).eval()


CLIP_CLASSES = {
    "CLIPModel": lambda: CLIPModel(clip_config()),
    "CLIPVisionModel": lambda: CLIPVisionModel(vision_config()),
    "CLIPVisionModelWithProjection": lambda: CLIPVisionModelWithProjection(vision_config()),
    "CLIPForImageClassification": lambda: CLIPForImageClassification(clip_config()),
}


def clip(name, seed=0):
    torch.manual_seed(seed)
    return sharpen(CLIP_CLASSES[name]()).eval()


def pixels(batch=3, size=24, seed=1):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def clip_inputs(name, batch=3, seed=1):
    inputs = {"pixel_values": pixels(batch, seed=seed)}
    if name == "CLIPModel":
        inputs["input_ids"] = torch.tensor([[1, 5, 7, 98]] * 2)
    return inputs


def tensors(output):
    """Every tensor of a model output, flattened, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = (
        output.values() if hasattr(output, "values") else output if isinstance(output, tuple | list) else []
    )
    return [t for value in values for t in tensors(value)]


def same(a, b):
    a, b = tensors(a), tensors(b)
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def state(model):
    """What remove_vtp must restore: hooks, attributes and state_dict keys of every module."""
    kinds = [k for k in vars(torch.nn.Module()) if "hook" in k]
    return {
        name: (
            {k: len(getattr(m, k)) for k in kinds if hasattr(getattr(m, k), "__len__")},
            sorted(vars(m)),
        )
        for name, m in model.named_modules()
    } | {"state_dict": list(model.state_dict())}
