"""A vision-language model that answers questions, and a text encoder that compares captions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPTextModelWithProjection,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ...apply import vtp_stats
from ...families.table import list_families
from ..bench.cli import UsageError, first_sentence
from ..cards.hub import load, without_code
from .cases import DOWNSAMPLE, Case, applied
from .prompts import INSTEAD, Prompter

TEXT_BATCH = 256


def load_model(name: str, weights: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A model with an adapter in eval mode; "random" weights need its config only (seed torch before).

    Raises UsageError for what cannot be had or pruned.
    """
    config = load(name, without_code(AutoConfig), INSTEAD)
    known = sorted(set(list_families()) & set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))
    if config.model_type not in known:
        raise UsageError(
            f"{name} is of model_type {config.model_type!r}; choose a model of one of {', '.join(known)}"
        )
    if weights == "random":
        try:
            return AutoModelForImageTextToText.from_config(config, dtype=dtype).to(device).eval()
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"{name} cannot be built: {first_sentence(error)}") from None
    of = without_code(AutoModelForImageTextToText, config=config, dtype=dtype)
    return load(name, of, INSTEAD).to(device).eval()


class Answerer:
    """Asks a model; `max_new_tokens` bound an answer, which is the likeliest word by word."""

    def __init__(self, model: PreTrainedModel, prompter: Prompter, max_new_tokens: int):
        self.model, self.prompter, self.max_new_tokens = model, prompter, max_new_tokens

    def inputs(self, images: Sequence, questions: Sequence[str], case: Case) -> tuple[dict, list[int]]:
        """What the case's model is given, on its device, and the image tokens of each row."""
        ratio = case.keep_ratio if case.method == DOWNSAMPLE else None
        inputs, counts = self.prompter(images, questions, ratio)
        move = {name: x.to(self.model.device) for name, x in inputs.items()}
        return {n: x.to(self.model.dtype) if x.is_floating_point() else x for n, x in move.items()}, counts

    def generate(self, case: Case, inputs: dict, new_tokens: int | None = None) -> Tensor:
        """New tokens [B, n] of the model as it is now; with `new_tokens`, every row writes so many."""
        told = {"max_new_tokens": new_tokens or self.max_new_tokens, "do_sample": False, "num_beams": 1}
        if new_tokens:
            told["min_new_tokens"] = new_tokens
        told["pad_token_id"] = self.prompter.tokenizer.pad_token_id
        stretched = self.prompter.family.any_size(self.model) if case.method == DOWNSAMPLE else nullcontext()
        with stretched:
            return self.model.generate(**inputs, **told)[:, inputs["input_ids"].shape[1] :]

    def __call__(self, case: Case, inputs: dict, counts: list[int]) -> tuple[list[str], list[int]]:
        """What the model says to each row, and the image tokens that were left of it."""
        with applied(self.model, case) as model:
            output = self.generate(case, inputs)
            kept = vtp_stats(model).num_kept if case.config else counts
        texts = self.prompter.tokenizer.batch_decode(output, skip_special_tokens=True)
        return [text.strip() for text in texts], list(kept)


class TextEncoder:
    """Texts to directions: CLIP's text tower, or the mean of any encoder's last hidden states."""

    def __init__(self, name: str, device: torch.device):
        config = load(name, without_code(AutoConfig), INSTEAD)
        self.is_clip = config.model_type in ("clip", "clip_text_model")
        model = CLIPTextModelWithProjection if self.is_clip else AutoModel
        self.model = load(name, without_code(model, dtype=torch.float32), INSTEAD).to(device).eval()
        self.tokenizer = load(name, without_code(AutoTokenizer), INSTEAD)
        self.longest = getattr(config.get_text_config(), "max_position_embeddings", None)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[n, D] of length one, on the CPU."""
        found = []
        for start in range(0, len(texts), TEXT_BATCH):
            told = {"padding": True, "truncation": self.longest is not None, "max_length": self.longest}
            tokens = self.tokenizer(list(texts[start : start + TEXT_BATCH]), return_tensors="pt", **told)
            tokens = {n: tokens[n].to(self.model.device) for n in ("input_ids", "attention_mask")}
            output = self.model(**tokens)
            if self.is_clip:
                embeds = output.text_embeds
            else:
                mask = tokens["attention_mask"].unsqueeze(-1)
                embeds = (output.last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            found.append(normalize(embeds.float(), dim=-1).cpu())
        return torch.cat(found)
