"""Rows of a batch on their own, and a batch around a single row."""

from __future__ import annotations

import torch
from torch import Tensor

from ..families.read_states import NAMES
from .case import Case

OF_VIDEOS = ("video", "second_per_grid")  # parts of names of arguments that speak of videos
PAD = 3  # columns put in front of a single row


def images_of_rows(case: Case) -> dict[str, list[list[int]]]:
    """By argument with pixels, the images that each row of the prompt holds."""
    ids, found = case.inputs["input_ids"], {}
    for encoding in case.baseline.encodings:
        counts = (ids == getattr(case.model.config, encoding.token)).sum(dim=1).tolist()
        sizes, image, rows = [len(rows) for rows in encoding.features], 0, []
        for count in counts:
            row = []
            while count > 0:
                row.append(image)
                count -= sizes[image]
                image += 1
            rows.append(row)
        found[encoding.pixels] = rows
    return found


def row_alone(case: Case, r: int) -> dict:
    """The inputs of row `r`, without its padding and the images of others."""
    inputs, ids = dict(case.inputs), case.inputs["input_ids"]
    mask = inputs.get("attention_mask")
    stays = torch.ones_like(ids[r], dtype=torch.bool) if mask is None else mask[r] != 0
    for name, x in case.inputs.items():
        if isinstance(x, Tensor) and x.shape == ids.shape:
            inputs[name] = x[r : r + 1, stays.to(x.device)]
        elif isinstance(x, Tensor) and name.startswith("batch_"):  # an entry for each row
            inputs[name] = x[r : r + 1]
    for name, rows in images_of_rows(case).items():
        images, count = rows[r], sum(map(len, rows))
        if inputs[name].dim() == 5 and inputs.get("pixel_attention_mask") is not None:
            images, count = [r] if images else [], len(ids)  # an entry a row, with all its images
        select_images(inputs, name, speaking_of(case, name), images, count)
    return inputs


def speaking_of(case: Case, name: str) -> list[str]:
    """The arguments that have an entry for each of the images in an argument with pixels, itself first."""
    shape, of_video = case.inputs["input_ids"].shape, name == "pixel_values_videos"
    found = [
        key
        for key in case.adapter.media_names(case.inputs)
        if any(part in key for part in OF_VIDEOS) == of_video
        and key not in (name, *NAMES)
        and getattr(case.inputs[key], "shape", ()) != shape
    ]
    return [name, *sorted(found)]


def select_images(inputs: dict, name: str, speaking: list[str], images: list[int], count: int) -> None:
    """Leave only these of `count` images in an argument with pixels, and in what speaks of the same."""
    grid = next((inputs[key] for key in speaking if key.endswith("_grid_thw")), None)
    if grid is None and count % len(inputs[name]) == 0:  # each may hold several that are images of their own
        several, count = count // len(inputs[name]), len(inputs[name])
        images = sorted({image // several for image in images})
    for key in speaking:
        x = inputs[key]
        parts = x.split(grid.prod(dim=-1).tolist()) if key == name and grid is not None else x
        if not isinstance(x, Tensor | list) or len(parts) != count:
            continue
        if not images:
            inputs.pop(key)
        elif key == name and grid is not None:  # patches of all images in one sequence
            inputs[key] = torch.cat([parts[i] for i in images])
        else:
            inputs[key] = x[images] if isinstance(x, Tensor) else [x[i] for i in images]


def with_neighbour(case: Case, alone: dict) -> dict:
    """A batch of the one row, padded on the left, and of a copy of it with more text in front."""
    ids = alone["input_ids"]
    config, media = case.model.config, list(case.media.values())
    ends = [getattr(config, name, -1) for name in (*media, "vision_start_token_id", "vision_end_token_id")]
    words = ids[~torch.isin(ids, torch.tensor(ends, device=ids.device))]
    inputs = {**alone, "attention_mask": torch.ones_like(ids)}
    for name, x in inputs.items():
        if isinstance(x, Tensor) and x.shape == ids.shape:
            inputs[name] = torch.nn.functional.pad(x, (PAD, 0)).repeat(2, 1)
        elif isinstance(x, Tensor):
            inputs[name] = torch.cat([x, x])
        elif isinstance(x, list):
            inputs[name] = x + x
    inputs["input_ids"][:, :PAD] = words[0] if len(words) else 0
    inputs["attention_mask"][1, :PAD] = 1
    return inputs
