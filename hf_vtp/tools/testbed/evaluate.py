"""The accuracy of a model of the testbed on fresh test scenes: zero-shot classes, or exact answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from PIL import Image
from torch import Tensor

from ..models import Loaded
from ..prompts import image_inputs
from .load import prompts
from .questions import CLASSES, NUM_ANSWERS, Question, facts, questions
from .scenes import make_scene

BATCH = 64
NEW_TOKENS = 4  # two words, the end, and one to spare
SEED = 1


@dataclass(frozen=True)
class Asked:
    """A question about a picture."""

    image: Image.Image
    question: Question


def asked(num: int, seed: int = SEED, varied: bool = False, split: str = "test") -> Iterator[Asked]:
    """One question about each of `num` scenes, its type drawn evenly from those the scene allows."""
    for i in range(num):
        scene = make_scene(seed, i, split, **({"size": None} if varied else {}))
        possible, random = questions(scene), Random(f"{split}/{seed}/{i}/asked")
        kind = random.choice(sorted({question.type for question in possible}))
        yield Asked(scene.image, random.choice([q for q in possible if q.type == kind]))


@torch.no_grad()
def answers(testbed: Loaded, items: list[Asked]) -> list[str]:
    """The model's greedy answers."""
    texts = []
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        inputs = prompts(testbed, [a.image for a in part], [a.question.question for a in part])
        output = testbed.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = output[:, inputs["input_ids"].shape[1] :]
        texts += testbed.tokenizer.batch_decode(new, skip_special_tokens=True)
    return [text.strip() for text in texts]


def accuracy_by_type(items: list[Asked], texts: list[str]) -> dict[str, dict[str, float]]:
    """Share of exact answers by type of question and over `all`, with their number and the chance level."""
    pairs = list(zip(items, texts, strict=True))
    rows = {}
    for kind, possible in NUM_ANSWERS.items():
        right = [a.question.answer == text for a, text in pairs if a.question.type == kind]
        if right:
            rows[kind] = {"accuracy": sum(right) / len(right), "num": len(right), "chance": 1 / possible}
    right = sum(a.question.answer == text for a, text in pairs)
    chance = sum(row["chance"] * row["num"] for row in rows.values()) / len(pairs)
    return {**rows, "all": {"accuracy": right / len(pairs), "num": len(pairs), "chance": chance}}


def classified(num: int, seed: int = SEED, split: str = "test") -> Iterator[tuple[Image.Image, int]]:
    """`num` scenes of one shape each, half of them with something printed, and its place in CLASSES."""
    for i in range(num):
        scene = make_scene(seed, i, split, num_things=1)
        yield scene.image, CLASSES.index(facts(scene)[0])


@torch.no_grad()
def class_scores(testbed: Loaded, images: list[Image.Image], classes: tuple[str, ...] = CLASSES) -> Tensor:
    """Cosines of image and class caption, [images, classes]."""
    model = testbed.model
    tokens = testbed.tokenizer(list(classes), padding=True, return_tensors="pt").to(model.device)
    texts = model.get_text_features(**tokens, return_dict=True).pooler_output
    pictures = []
    for start in range(0, len(images), BATCH):
        pixels = image_inputs(model, testbed.processor, images[start : start + BATCH])
        pictures.append(model.get_image_features(**pixels, return_dict=True).pooler_output)
    image, text = (x / x.norm(dim=-1, keepdim=True) for x in (torch.cat(pictures), texts))
    return image @ text.T


def zero_shot(testbed: Loaded, items: list[tuple[Image.Image, int]]) -> float:
    """Share of pictures whose class has the highest score."""
    scores = class_scores(testbed, [image for image, _ in items])
    return (scores.argmax(-1).cpu() == torch.tensor([label for _, label in items])).float().mean().item()
