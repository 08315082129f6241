"""Average normalised Levenshtein similarity, for text read from documents."""

import evaluate
import numpy as np

from ._info import info


def distance(a: str, b: str) -> int:
    """Letters to insert, delete or replace to make b of a."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def similarity(said: str, answer: str) -> float:
    """1 - distance / longer length, without regard to case and repeated spaces; 1 for two empty texts."""
    said, answer = (" ".join(text.lower().split()) for text in (said, answer))
    return 1 - distance(said, answer) / max(len(said), len(answer), 1)


class ANLS(evaluate.Metric):
    """Predictions: an answer; references: the answers that are right. Below the threshold a score is 0."""

    def _info(self):
        citation = "Biten et al., Scene Text Visual Question Answering, arXiv:1905.13648"
        return info("Average normalised Levenshtein similarity.", "text", "texts", citation)

    def _compute(self, predictions, references, threshold=0.5, items=False):
        pairs = zip(predictions, references, strict=True)
        best = [max(similarity(said, answer) for answer in answers) for said, answers in pairs]
        scores = [score if score >= threshold else 0.0 for score in best]
        return {"anls": float(np.mean(scores))} | ({"anls_items": scores} if items else {})
