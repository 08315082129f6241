"""Captioned photographs, and what a frozen tower makes of them, computed once and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..bench.cli import UsageError, replacing
from ..evaluation.items import decoded, open_images
from ..models import Loaded
from ..prompts import image_inputs

TRAIN = ("train",)
HELD_OUT = ("validation", "val", "dev", "test")  # the first of them that the data has
PICTURES = 32  # read by the tower at a time
LAYER = -2  # the hidden state that a LLaVA reads


@dataclass(frozen=True)
class Captioned:
    """The pictures of one split: features [pictures, tokens, width] in float16, on disk, and captions."""

    features: np.ndarray
    captions: list[list[str]]


def open_split(source: str, splits: tuple[str, ...]):
    """The first of `splits` that the data has; raises UsageError where there is none, or no captions."""
    for split in splits:
        try:
            data = open_images(source, split)
        except UsageError as error:
            missing = error
            continue
        if data.captions is None:
            raise UsageError(f"{source} has no column of captions; name it caption or captions")
        return data
    raise missing


def read_captioned(source: str, splits: tuple[str, ...], tower: Loaded, folder: Path) -> Captioned:
    """Features of all pictures in `folder`, written there unless they are there already.

    Broken pictures are left out. Raises UsageError for data without captions, or a folder with those of
    another data set.
    """
    name = splits[0]
    features, about = folder / f"{name}_features.f16", folder / f"{name}_captions.json"
    made_from = {"captions": source, "tower": tower.model.name_or_path}
    if not about.exists():
        captions, shape = _write(open_split(source, splits), tower, features, name)
        with replacing(about) as temporary:
            content = {"from": made_from, "shape": shape, "captions": captions}
            temporary.write_text(json.dumps(content), encoding="utf-8")
    found = json.loads(about.read_text(encoding="utf-8"))
    if found["from"] != made_from:
        raise UsageError(f"{about} is of other captions or another tower; remove it or choose another --out")
    return Captioned(np.memmap(features, np.float16, "r", shape=tuple(found["shape"])), found["captions"])


@torch.inference_mode()
def _write(data, tower: Loaded, path: Path, name: str) -> tuple[list[list[str]], list[int]]:
    """Write what a LLaVA reads of every picture; returns the captions and [pictures, tokens, width]."""
    captions, shape = [], []
    encoder = tower.model.base_model
    with replacing(path) as temporary, temporary.open("wb") as file:
        for images, own in captioned_batches(data, f"features of {name}"):
            pixels = image_inputs(tower.model, tower.processor, images)["pixel_values"]
            states = encoder(pixel_values=pixels, output_hidden_states=True).hidden_states[LAYER]
            found = states[:, 1:].to("cpu", torch.float16)  # without [CLS]
            shape = found.shape[1:]
            file.write(found.numpy().tobytes())
            captions += own
        if not captions:
            raise UsageError(f"{data.source} has no captioned picture that can be read")
    return captions, [len(captions), *shape]


def captioned_batches(data, what: str) -> Iterator[tuple[list[Image.Image], list[list[str]]]]:
    """PICTURES at a time of those that can be read and have captions, with these, under a progress bar."""
    images, captions = [], []
    for item in tqdm(data, desc=what, disable=None):
        image = decoded(item)
        if image is None or not item.captions:
            continue
        images.append(image)
        captions.append(list(item.captions))
        if len(images) == PICTURES:
            yield images, captions
            images, captions = [], []
    if images:
        yield images, captions
