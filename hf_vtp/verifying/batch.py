"""Rows of a batch on their own, and a batch around a single row."""

from __future__ import annotations

import torch
from torch import Tensor

from .case import Case

GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}
PER_VIDEO = ("second_per_grid_ts",)
PAD = 3  # columns put in front of a single row


def images_of_rows(case: Case) -> dict[str, list[list[int]]]:
    """By argument with pixels, the images that each row of the prompt holds."""
    ids, found = case.inputs["input_ids"], {}
    names = {token: name for name, token in case.media.items()}
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
        found[names[encoding.token]] = rows
    return found


def row_alone(case: Case, r: int) -> dict:
    """The inputs of row `r`, without its padding and the images of others."""
    inputs, ids = dict(case.inputs), case.inputs["input_ids"]
    mask = inputs.get("attention_mask")
    stays = torch.ones_like(ids[r], dtype=torch.bool) if mask is None else mask[r] != 0
    for name, x in case.inputs.items():
        if isinstance(x, Tensor) and x.shape == ids.shape:
            inputs[name] = x[r : r + 1, stays.to(x.device)]
    for name, rows in images_of_rows(case).items():
        select_images(inputs, name, rows[r])
    return inputs


def select_images(inputs: dict, name: str, images: list[int]) -> None:
    """Leave only these images of an argument with pixels, and of what speaks of the same images."""
    grid = GRIDS.get(name)
    speaking = [k for k in (grid, *(PER_VIDEO if name == "pixel_values_videos" else ())) if k in inputs]
    if not images:
        for key in (name, *speaking):
            inputs.pop(key)
        return
    if grid in inputs:
        parts = inputs[name].split(inputs[grid].prod(dim=-1).tolist())
        inputs[name] = torch.cat([parts[i] for i in images])
    else:
        inputs[name] = inputs[name][images]
    for key in speaking:
        inputs[key] = (
            inputs[key][images] if isinstance(inputs[key], Tensor) else [inputs[key][i] for i in images]
        )


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
