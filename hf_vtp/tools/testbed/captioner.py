"""A LLaVA that writes captions: a classifier's tower, frozen, a new projector and a small Llama."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    BaseImageProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ..models import Loaded
from .caption_data import HELD_OUT, LAYER, TRAIN, Captioned, read_captioned
from .caption_words import CAPTION, EOS, IMAGE, PAD, UNKNOWN, word_tokenizer
from .load import save_weights
from .losses import answers_after
from .training import Task

WIDTH, LAYERS, HEADS, INSIDE = 192, 3, 3, 512
LONGEST = 24  # words of a caption that are read
SIZES = {"width": WIDTH, "layers": LAYERS}  # for the card
SMOOTHING = 0.1
CHECKED = 128  # held-out pictures of which the loss is logged


def captions(
    source: str, tower: Loaded, run: Path, seed: int, size: int
) -> tuple[Task, PreTrainedTokenizerFast]:
    """The task of describing the pictures of `source`, and the tokenizer of its words.

    Features and captions of the pictures are kept in the folder `run`; the held-out loss reads `size`
    pictures at a time.
    """
    learned, held_out = (read_captioned(source, splits, tower, run) for splits in (TRAIN, HELD_OUT))
    tokenizer = word_tokenizer(caption for own in learned.captions for caption in own)
    checked = CaptionBatches(held_out, tokenizer, seed)

    def new() -> tuple[PreTrainedModel, nn.Module]:
        return new_captioner(tower.model, tokenizer), nn.Identity()

    task = Task(
        "captions",
        new,
        CaptionBatches(learned, tokenizer, seed),
        caption_loss,
        partial(held_out_loss, batches=checked, size=size),
        {"captions": source, "tower": tower.model.name_or_path},
    )
    return task, tokenizer


def new_captioner(
    tower: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> LlavaForConditionalGeneration:
    """The model with the tower's weights, which learn nothing; the rest is random."""
    vision, ids = tower.config, tokenizer.convert_tokens_to_ids
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INSIDE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=ids(PAD),
        eos_token_id=ids(EOS),
        bos_token_id=None,
    )
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text,
        image_token_id=ids(IMAGE),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_layer=LAYER,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    own = model.model.vision_tower
    # a tower alone has a pooler that the classifier lacks; no feature comes from it
    own.load_state_dict(tower.base_model.float().state_dict(), strict=False)
    own.requires_grad_(False)
    return model


def save_captioner(
    model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerFast, images: BaseImageProcessor
) -> None:
    """Weights, configs, tokenizer and image processor; its chat template asks for a caption, always."""
    save_weights(model, folder)
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
        chat_template=f"{IMAGE} {CAPTION}",
    ).save_pretrained(folder)


class CaptionBatches:
    """Batch after batch of pictures in an order of its own in every epoch, with all captions of each."""

    def __init__(self, data: Captioned, tokenizer: PreTrainedTokenizerFast, seed: int):
        self.data, self.seed = data, seed
        flat = [caption for captions in data.captions for caption in captions]
        encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
        self.words = [[next(encoded)[:LONGEST] for _ in captions] for captions in data.captions]
        self.ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}

    def __call__(self, size: int, start: int) -> Iterator[dict[str, Tensor]]:
        """From batch number `start` on, without end."""
        num, epoch, order = len(self.words), None, []
        for batch in range(start, 1 << 62):
            chosen = []
            for i in range(batch * size, (batch + 1) * size):
                if i // num != epoch:
                    epoch, order = i // num, list(range(num))
                    Random(f"{self.seed}/{epoch}").shuffle(order)
                chosen.append(order[i % num])
            yield self.rows(chosen)

    def rows(self, chosen: list[int]) -> dict[str, Tensor]:
        """One row a picture: placeholders, then its captions, each at the positions it has alone.

        `part` is 0 for the image, n for caption n, -1 for padding. `labels` holds the next token; an unknown
        word is read, never predicted.
        """
        features = np.stack([self.data.features[i] for i in chosen])
        tokens = features.shape[1]
        length = tokens + max(sum(len(words) + 1 for words in self.words[i]) for i in chosen)
        ids = np.full((len(chosen), length), self.ids[PAD])
        labels, part, positions = np.full_like(ids, -100), np.full_like(ids, -1), np.zeros_like(ids)
        ids[:, :tokens], part[:, :tokens], positions[:, :tokens] = self.ids[IMAGE], 0, np.arange(tokens)
        for row, i in enumerate(chosen):
            start = tokens
            for number, words in enumerate(self.words[i], start=1):
                end = start + len(words) + 1
                ids[row, start:end] = [self.ids[CAPTION], *words]
                labels[row, start:end] = [*words, self.ids[EOS]]
                part[row, start:end], positions[row, start:end] = number, tokens + np.arange(end - start)
                start = end
        labels[labels == self.ids[UNKNOWN]] = -100
        arrays = {"input_ids": ids, "labels": labels, "part": part, "position_ids": positions}
        return {"features": torch.from_numpy(features)} | {k: torch.from_numpy(v) for k, v in arrays.items()}


def caption_loss(model: PreTrainedModel, head, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Smoothed cross-entropy of the captions' words and ends; `words` is the plain one."""
    projected = model.model.multi_modal_projector(batch["features"].float())
    logits, labels = answers_after(model, projected.flatten(0, 1), batch)
    words = cross_entropy(logits, labels)
    right = (logits.argmax(-1) == labels).float().mean()
    smoothed = cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    return smoothed, {"words": words, "right": right}


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, batches: CaptionBatches, size: int) -> dict[str, Tensor]:
    """Cross-entropy of the captions of the first CHECKED pictures, the mean of batches."""
    num = min(CHECKED, len(batches.words))
    losses = []
    for start in range(0, num, size):
        batch = batches.rows(list(range(start, min(num, start + size))))
        batch = {name: x.to(model.device) for name, x in batch.items()}
        losses.append(caption_loss(model, None, batch)[1]["words"])
    return {"held_out": torch.stack(losses).mean()}
