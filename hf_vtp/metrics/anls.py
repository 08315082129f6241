"""Average normalised Levenshtein similarity, for answers that are read from documents."""

import evaluate
import numpy as np

from ._info import info


def distance(a: str, b: str) -> int:
    """Number of letters to insert, delete or replace to turn a into b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def similarity(prediction: str, reference: str) -> float:
    """1 - distance / longer length, without regard to case and repeated spaces; 1 for two empty texts."""
    a, b = (" ".join(text.lower().split()) for text in (prediction, reference))
    return 1 - distance(a, b) / max(len(a), len(b), 1)


class ANLS(evaluate.Metric):
    """Predictions: an answer; references: the right answers. A similarity below the threshold scores 0."""

    def _info(self):
        citation = "Biten et al., Scene Text Visual Question Answering, arXiv:1905.13648"
        return info("Average normalised Levenshtein similarity.", "text", "texts", citation)

    def _compute(self, predictions, references, threshold=0.5, items=False):
        pairs = zip(predictions, references, strict=True)
        best = [max(similarity(prediction, answer) for answer in answers) for prediction, answers in pairs]
        scores = [score if score >= threshold else 0.0 for score in best]
        return {"anls": float(np.mean(scores))} | ({"anls_items": scores} if items else {})
