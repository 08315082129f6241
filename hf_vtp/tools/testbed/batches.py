"""Training batches from the endless scenes, made in worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .models import MERGE, PATCH, TOKENS
from .questions import caption, facts, questions
from .scenes import COLORS, SHAPES, WORDS, Scene, make_scene
from .tokenizer import EOS, IMAGE, PAD, VISION_END, VISION_START, VOCABULARY, encode

# classes of a place in the picture, by color, shape and writing; 0: nothing
TARGETS = (1 + len(COLORS), 1 + len(SHAPES), 1 + len(WORDS) + 10)
COVERED = 0.2  # a thing counts at a place if it covers so much of it, or so much of the thing lies there
ASKED, TURN, PER_TYPE = 6, 14, 2  # questions about one picture, tokens of each, and most of one type
CAPTION = 24  # tokens


class Batches(IterableDataset):
    """Batch after batch without end; batch b holds the scenes b·size to (b + 1)·size − 1.

    Args:
        collate: makes a dict of tensors from a list of (scene, random generator of its own).
        start: the first batch, so that a run can resume where it was stopped.
    """

    def __init__(self, collate, seed: int, size: int, start: int = 0, varied: bool = False):
        self.collate, self.seed, self.size, self.start = collate, seed, size, start
        self.options = {"size": None} if varied else {}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        batch = self.start + first
        while True:
            indices = range(batch * self.size, (batch + 1) * self.size)
            scenes = [make_scene(self.seed, i, "train", **self.options) for i in indices]
            yield self.collate(
                [(s, Random(f"{self.seed}/{i}")) for s, i in zip(scenes, indices, strict=True)]
            )
            batch += step

    def loader(self, workers: int) -> DataLoader:
        return DataLoader(self, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)


def pixels(scene: Scene) -> np.ndarray:
    """uint8 [3, height, width]."""
    return np.asarray(scene.image).transpose(2, 0, 1)


def patches(scene: Scene) -> np.ndarray:
    """uint8 [patches, 3 · 2 · PATCH²], in the order of Qwen2VLImageProcessor: merge units one by one."""
    image = pixels(scene)
    rows, columns = (side // (PATCH * MERGE) for side in image.shape[1:])
    cut = image.reshape(3, rows, MERGE, PATCH, columns, MERGE, PATCH).transpose(1, 4, 2, 5, 0, 3, 6)
    twice = np.repeat(cut[:, :, :, :, :, None], 2, axis=5)  # a picture is a video of two equal frames
    return twice.reshape(rows * columns * MERGE**2, -1)


def targets(scene: Scene, cell: int) -> np.ndarray:
    """The color, shape and writing at every place of `cell` × `cell` pixels; int64 [places, 3]."""
    columns, rows = (side // cell for side in scene.image.size)
    shown = np.zeros((rows, columns, 3), dtype=np.int64)
    best = np.zeros((rows, columns))
    for thing in scene.things:
        area = _overlap(thing.box, rows, columns, cell)
        where = area > best
        best[where] = area[where]
        shown[where, :2] = 1 + list(COLORS).index(thing.color), 1 + SHAPES.index(thing.shape)
    for box, label in _characters(scene):
        shown[_overlap(box, rows, columns, cell) > 0, 2] = label
    return shown.reshape(-1, 3)


def _characters(scene: Scene) -> list[tuple[tuple, int]]:
    """Boxes of the printed word, or of each digit of the printed number, with their classes."""
    if scene.writing is None:
        return []
    left, top, right, bottom = scene.writing.box
    if scene.writing.kind == "word":
        return [(scene.writing.box, 1 + WORDS.index(scene.writing.text))]
    middle = (left + right) / 2
    labels = [1 + len(WORDS) + int(digit) for digit in scene.writing.text]
    return [((left, top, middle, bottom), labels[0]), ((middle, top, right, bottom), labels[1])]


def _overlap(box: tuple, rows: int, columns: int, cell: int) -> np.ndarray:
    """Pixels of each place that the box covers, 0 where these are too few to count; [rows, columns]."""
    left, top, right, bottom = box
    x, y = np.arange(columns) * cell, np.arange(rows) * cell
    across = np.clip(np.minimum(x + cell, right) - np.maximum(x, left), 0, None)
    down = np.clip(np.minimum(y + cell, bottom) - np.maximum(y, top), 0, None)
    area = down[:, None] * across[None]
    return np.where(area >= COVERED * min(cell**2, (right - left) * (bottom - top)), area, 0)


def clip_batch(made: list[tuple[Scene, Random]]) -> dict[str, torch.Tensor]:
    """Pictures, a caption each, and which caption is true of which picture (`fits`, [pictures, captions])."""
    ids = np.full((len(made), CAPTION), VOCABULARY[PAD])
    captions = [caption(scene, random) for scene, random in made]
    for row, text in zip(ids, captions, strict=True):
        tokens = [*encode(text), VOCABULARY[EOS]]
        row[: len(tokens)] = tokens
    claims = [set(text.split(" and ")) for text in captions]
    true = [set(facts(scene)) for scene, _ in made]
    fits = np.array([[claimed <= shown for claimed in claims] for shown in true], dtype=np.float32)
    return {
        "pixel_values": torch.from_numpy(np.stack([pixels(scene) for scene, _ in made])),
        "input_ids": torch.from_numpy(ids),
        "fits": torch.from_numpy(fits),
        "targets": torch.from_numpy(np.concatenate([targets(scene, PATCH) for scene, _ in made])),
    }


def llava_batch(made: list[tuple[Scene, Random]]) -> dict[str, torch.Tensor]:
    """Pictures and several questions about each, after its placeholders in one row; see `_rows`."""
    placeholders = [[VOCABULARY[IMAGE]] * TOKENS] * len(made)
    places = [np.arange(TOKENS)] * len(made)
    return {
        "pixel_values": torch.from_numpy(np.stack([pixels(scene) for scene, _ in made])),
        "targets": torch.from_numpy(np.concatenate([targets(scene, PATCH) for scene, _ in made])),
        **_rows(made, placeholders, places),
    }


def qwen_batch(made: list[tuple[Scene, Random]]) -> dict[str, torch.Tensor]:
    """The same for pictures of different sizes, with three positions a token."""
    grids = np.array([[1, *(side // PATCH for side in pixels(scene).shape[1:])] for scene, _ in made])
    images, places = [], []
    for _, height, width in grids // MERGE:
        units = height * width
        image = [VOCABULARY[VISION_START], *[VOCABULARY[IMAGE]] * units, VOCABULARY[VISION_END]]
        row, column = np.divmod(np.arange(units), width)
        inside = np.stack([np.zeros(units, dtype=np.int64), row, column]) + 1
        images.append(image)
        places.append(np.pad(inside, ((0, 0), (1, 1)), constant_values=(0, 1 + max(height, width))))
    return {
        "pixel_values": torch.from_numpy(np.concatenate([patches(scene) for scene, _ in made])),
        "image_grid_thw": torch.from_numpy(grids),
        "targets": torch.from_numpy(np.concatenate([targets(scene, PATCH * MERGE) for scene, _ in made])),
        **_rows(made, images, places),
    }


def _rows(made: list, images: list[list[int]], places: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Rows of one image and ASKED questions with their answers, each at the positions it has alone.

    `part` is 0 for the image, n for question n, -1 for padding: a token sees the image and its own part.
    `labels` holds the next token where it is part of an answer, else -100.
    """
    longest = max(map(len, images))
    length = longest + ASKED * TURN
    ids = np.full((len(made), length), VOCABULARY[PAD])
    labels, part = np.full_like(ids, -100), np.full_like(ids, -1)
    positions = np.zeros((*places[0].shape[:-1], *ids.shape), dtype=np.int64)
    for r, (scene, random) in enumerate(made):
        n = len(images[r])
        ids[r, :n], part[r, :n], positions[..., r, :n] = images[r], 0, places[r]
        for number, asked in enumerate(choose(scene, random), start=1):
            prompt, answer = encode(asked.question), [*encode(asked.answer), VOCABULARY[EOS]]
            start = longest + (number - 1) * TURN
            end = start + len(prompt) + len(answer)
            ids[r, start:end], part[r, start:end] = prompt + answer, number
            labels[r, start + len(prompt) - 1 : end - 1] = answer
            positions[..., r, start:end] = places[r].max() + 1 + np.arange(end - start)
    arrays = {"input_ids": ids, "labels": labels, "part": part, "position_ids": positions}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def choose(scene: Scene, random: Random) -> list:
    """At most ASKED questions of the scene, at most PER_TYPE of a type, with the one about writing."""
    asked = questions(scene)
    random.shuffle(asked)
    asked.sort(key=lambda q: q.type not in ("word", "number"))
    chosen = [q for i, q in enumerate(asked) if sum(p.type == q.type for p in asked[:i]) < PER_TYPE]
    return chosen[:ASKED]
