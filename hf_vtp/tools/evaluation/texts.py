"""Texts as directions: the text tower of a model that compares texts with images, or any other encoder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedConfig

from ..bench.cli import UsageError
from ..loading import load, without_code
from ..models import load_config

BATCH = 256  # texts
INSTEAD = "give a folder or a name with a text encoder and its tokenizer"


class TextEncoder:
    """Texts to directions; raises UsageError where the checkpoint has no trained text tower or tokenizer."""

    def __init__(self, name: str, device: torch.device, dtype: torch.dtype = torch.float32):
        config = load_config(name, instead=INSTEAD)
        loader = without_code(text_class(config), config=config, dtype=dtype, output_loading_info=True)
        model, report = load(name, loader, INSTEAD)
        untrained = [key for key in report["missing_keys"] if key.startswith("text_")]
        if untrained or "input_ids" not in inspect.signature(type(model).forward).parameters:
            raise UsageError(f"{name} holds no trained text tower; {INSTEAD}")
        self.model = model.to(device).eval()
        self.tokenizer = load(name, without_code(AutoTokenizer), INSTEAD)
        self.longest = getattr(config.get_text_config(), "max_position_embeddings", None)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [n, D] in float32 on the CPU."""
        found = []
        for start in range(0, len(texts), BATCH):
            cut = {"truncation": self.longest is not None, "max_length": self.longest}
            batch = list(texts[start : start + BATCH])
            tokens = self.tokenizer(batch, padding=True, return_tensors="pt", **cut)
            tokens = {n: tokens[n].to(self.model.device) for n in ("input_ids", "attention_mask")}
            found.append(normalize(self._embed(tokens).float(), dim=-1).cpu())
        return torch.cat(found)

    def _embed(self, tokens: dict[str, Tensor]) -> Tensor:
        """The model's own embeddings, else the mean of its last hidden states, [B, D]."""
        if hasattr(self.model, "get_text_features"):
            return self.model.get_text_features(**tokens, return_dict=True).pooler_output
        output = self.model(**tokens)
        if "text_embeds" in output:
            return output.text_embeds
        mask = tokens["attention_mask"].unsqueeze(-1)
        return (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)

    def classes(self, names: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """The mean direction of each class's prompts, [C, D]."""
        embeds = self([prompt.format(name) for name in names for prompt in prompts])
        return normalize(embeds.unflatten(0, (len(names), len(prompts))).mean(dim=1), dim=-1)


def text_class(config: PreTrainedConfig) -> type:
    """AutoModel, or the class that the config names where AutoModel would leave its projection out."""
    named = (config.architectures or [""])[0]
    return getattr(transformers, named, AutoModel) if named.endswith("WithProjection") else AutoModel
