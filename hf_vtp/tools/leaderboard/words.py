"""How the page names rows, points and metrics, and its tables."""

from __future__ import annotations

from ..evaluation.cases import BASELINES, DOWNSAMPLE
from .entries import Point

NAMES = {
    "agree": "agreement",
    "top_1": "top-1",
    "cosine": "cosine",
    "exact_match": "exact match",
    "cider": "CIDEr",
}
MEANING = {
    "agree": "the share of images whose label is the unpruned model's",
    "top_1": "accuracy of the label",
    "cosine": "with what the unpruned model pools of the same image",
    "exact_match": "the share of answers that are a right answer",
    "cider": "against the references",
    "agreement": "the share of answers that are the unpruned model's",
}
BASELINE = (*BASELINES, DOWNSAMPLE)


def short(point: Point) -> str:
    return point.words.replace(", keep", "")


def name(row: str) -> str:
    """The row as the page names it: baselines in italics."""
    return f"*{row}*" if row in BASELINE else f"`{row}`"


def markdown(headings: list[str], rows: list[list[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
