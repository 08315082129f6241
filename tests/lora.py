"""LoRA on a tiny LLaVA, with weights that matter: PEFT starts B at zero, which would hide a mistake."""

import torch
import torchao.quantization
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import torchao as lora_on_torchao

TARGETS = r".*(vision_tower.*\.[qkv]_proj|projector\.linear_[12]|language_model.*self_attn\.[qkvo]_proj)"

if not hasattr(torchao.quantization, "LinearActivationQuantizedTensor"):
    # PEFT before 0.19 imports that name for every layer it wraps; newer torchao has dropped it
    lora_on_torchao.is_torchao_available = lambda: False


CONFIG = dict(r=2, lora_alpha=4, target_modules=TARGETS)


def with_lora(model, seed=5):
    """The PeftModel around `model`; the same seed gives the same adapter, whatever ran before."""
    return fill(get_peft_model(model, LoraConfig(**CONFIG)), seed)


def fill(model, seed=5):
    """Random numbers in every A and B."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1, generator=generator)
    return model


def merged(projection):
    """The weight and bias that a projection amounts to, LoRA included: W + B·A·alpha/r."""
    base = getattr(projection, "base_layer", projection)
    weight = base.weight
    if hasattr(projection, "lora_A"):
        a, b = projection.lora_A["default"].weight, projection.lora_B["default"].weight
        weight = weight + b @ a * (4 / 2)
    return weight.detach(), base.bias.detach()
