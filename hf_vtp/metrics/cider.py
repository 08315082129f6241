"""CIDEr-D: how much a caption has in common with those of people, by n-grams that few other images have.

Words are runs of letters and digits in lower case, without the stemming of the paper and without the
Treebank tokenizer of the COCO evaluation, so that scores are a little off what these two give.
"""

import math
import re
from collections import Counter

import evaluate
import numpy as np

from ._info import info

LONGEST = 4  # words of an n-gram
SIGMA = 6.0  # words by which a caption may differ in length
SCALE = 10.0


def n_grams(text: str) -> list:
    """The counts of n-grams of a text, one Counter for each n from 1 to LONGEST."""
    words = re.findall(r"[\w']+", text.lower())
    return [Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in range(1, LONGEST + 1)]


def similarity(candidate: Counter, reference: Counter, weight: dict) -> float:
    """Cosine of the weighted counts of two texts, those of the candidate cut off at the reference's."""
    a = {gram: count * weight[gram] for gram, count in candidate.items()}
    b = {gram: count * weight[gram] for gram, count in reference.items()}
    both = sum(min(value, b[gram]) * b[gram] for gram, value in a.items() if gram in b)
    return both / (math.hypot(*a.values()) * math.hypot(*b.values())) if both else 0.0


class Cider(evaluate.Metric):
    """Predictions: a caption; references: the right captions of that image.

    An n-gram weighs log(images / images with it in a reference), so that of one image nothing counts.
    """

    def _info(self):
        citation = "Vedantam et al., CIDEr, arXiv:1411.5726"
        return info("CIDEr-D: weighted n-gram similarity, from 0 to 10.", "text", "texts", citation)

    def _compute(self, predictions, references, items=False):
        candidates = [n_grams(text) for text in predictions]
        known = [[n_grams(text) for text in texts] for texts in references]
        images = Counter(
            gram for texts in known for gram in {gram for text in texts for grams in text for gram in grams}
        )
        total = math.log(len(known))
        weight = {gram: total - math.log(count) for gram, count in images.items()}
        unseen = {gram for text in candidates for grams in text for gram in grams} - weight.keys()
        weight |= dict.fromkeys(unseen, total)
        scores = []
        for candidate, texts in zip(candidates, known, strict=True):
            each = []
            for text in texts:
                apart = candidate[0].total() - text[0].total()
                alike = [similarity(a, b, weight) for a, b in zip(candidate, text, strict=True)]
                each.append(SCALE * math.exp(-(apart**2) / (2 * SIGMA**2)) * np.mean(alike))
            scores.append(float(np.mean(each)))
        return {"cider": float(np.mean(scores))} | ({"cider_items": scores} if items else {})
