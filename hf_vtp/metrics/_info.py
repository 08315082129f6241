"""The MetricInfo of every metric module, and the normal forms by which answers are compared."""

import re
import string

import datasets
import evaluate

ARTICLES = {"a", "an", "the"}
DIGITS = {
    word: str(i) for i, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
DIGITS["none"] = "0"
PUNCTUATION = re.escape(string.punctuation.replace("'", ""))
# a point or comma between digits is part of a number, and an apostrophe part of its word
BETWEEN_WORDS = re.compile(rf"(?<!\d)[{PUNCTUATION}]|[{PUNCTUATION}](?!\d)")

KINDS = {
    "text": datasets.Value("string"),
    "texts": datasets.Sequence(datasets.Value("string")),
    "id": datasets.Value("int64"),
    "ids": datasets.Sequence(datasets.Value("int64")),
    "number": datasets.Value("float64"),
    "vector": datasets.Sequence(datasets.Value("float32")),
}


def info(description: str, predictions: str, references: str, citation: str = "") -> evaluate.MetricInfo:
    """MetricInfo of a metric whose inputs are of these KINDS."""
    features = {"predictions": KINDS[predictions], "references": KINDS[references]}
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description="predictions and references, one each for every item",
        features=datasets.Features(features),
    )


def plain(text: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(text.lower().split()).rstrip(".").rstrip()


def vqa_words(text: str) -> str:
    """An answer as VQA compares it: no case, punctuation, articles or apostrophes; numbers as digits."""
    words = BETWEEN_WORDS.sub(" ", text.lower()).replace("'", "").split()
    return " ".join(DIGITS.get(word, word) for word in words if word not in ARTICLES)
