"""Prompts for tiny models, with the ids that their configs name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IMAGE, VIDEO, START, END, PAD, WORDS = 30, 31, 32, 33, 0, 40


def prompt(rows: list[list[list[int]]], first: Sequence[int] = ()) -> dict[str, Tensor]:
    """Rows of media, each a list of ids, and words around them, padded on the left.

    The first, to be the longest, begins with a placeholder (unless `first` goes before it): a decode step
    that took the features of the prompt once more would go unseen where that begins with a word or padding.
    """
    made: list[list[int]] = []
    for media in rows:
        row = [3, 4, START] if made else [*first]
        for i, ids in enumerate(media):
            row += [*ids, END, 5 + i, START]
        made.append([*row[:-1], 8, 9])
    longest = max(map(len, made))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in made])
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def counted(images: list[list[int]], first: Sequence[int] = ()) -> dict[str, Tensor]:
    """The same for rows of images of so many placeholders."""
    return prompt([[[IMAGE] * count for count in counts] for counts in images], first)
