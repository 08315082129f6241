"""Captions of a scene, and questions about it that have one short answer."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .scenes import COLORS, DIGITS, SHAPES, WORDS, Scene, Thing

NUMBERS = DIGITS[:5]
RELATIONS = ("left", "right", "above", "below")
NUM_ANSWERS = {  # possible answers, by type of question; a guess is right once in so many
    "color": len(COLORS),
    "shape": len(SHAPES),
    "count": len(NUMBERS) - 1,
    "place": len(RELATIONS),
    "word": len(WORDS),
    "number": 100,
}
CLEARLY = 1.6  # a thing is left of another only if it is so many times farther left than above or below
APART = 12  # pixels


@dataclass(frozen=True)
class Question:
    """A question, its only right answer, and the type it is counted under."""

    type: str
    question: str
    answer: str


def questions(scene: Scene) -> list[Question]:
    """Every question of the scene that has one answer, in a fixed order."""
    things = scene.things
    asked = [Question("count", "how many objects are there ?", NUMBERS[len(things)])]
    for thing in things:
        if _alone(things, "shape", thing):
            asked.append(Question("color", f"what color is the {thing.shape} ?", thing.color))
        if _alone(things, "color", thing):
            asked.append(Question("shape", f"what shape is the {thing.color} object ?", thing.shape))
    for a in things:
        for b in things:
            if a is not b and things.count(a) == 1 and _unlike(things, a) and _unlike(things, b):
                place = relation(a, b)
                if place:
                    asked.append(Question("place", f"where is the {_name(a)} from the {_name(b)} ?", place))
    if scene.writing:
        what = scene.writing.kind
        asked.append(Question(what, f"what {what} is written ?", scene.writing.spoken))
    return asked


def relation(a: Thing, b: Thing) -> str | None:
    """The direction from `b` to `a`; None where they are too close, or the direction is not clear."""
    dx, dy = (p - q for p, q in zip(a.center, b.center, strict=True))
    if max(abs(dx), abs(dy)) < APART:
        return None
    if abs(dx) >= CLEARLY * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) >= CLEARLY * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def facts(scene: Scene) -> list[str]:
    """The facts that a caption can state of the scene, one phrase each: "a red circle", "the word cat"."""
    phrases = [_article(_name(thing)) for thing in scene.things]
    return phrases + ([f"the {scene.writing.kind} {scene.writing.spoken}"] if scene.writing else [])


def caption(scene: Scene, random: Random | None = None) -> str:
    """All facts of the scene; with `random`, some of them in any order."""
    phrases = facts(scene)
    if random is not None:
        phrases = random.sample(phrases, random.randint(1, len(phrases)))
    return " and ".join(phrases)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _name(thing: Thing) -> str:
    return f"{thing.color} {thing.shape}"


def _alone(things: tuple[Thing, ...], attribute: str, thing: Thing) -> bool:
    return sum(getattr(t, attribute) == getattr(thing, attribute) for t in things) == 1


def _unlike(things: tuple[Thing, ...], thing: Thing) -> bool:
    return sum(_name(t) == _name(thing) for t in things) == 1


CLASSES = tuple(_article(f"{color} {shape}") for color in COLORS for shape in SHAPES)  # for zero-shot
