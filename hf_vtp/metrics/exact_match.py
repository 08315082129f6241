"""The share of answers that are among the right ones, regardless of case and a final full stop."""

import evaluate
import numpy as np

from ._info import info, plain


class ExactMatch(evaluate.Metric):
    """Predictions: an answer; references: the right answers."""

    def _info(self):
        return info("How often the answer is one of the right ones.", "text", "texts")

    def _compute(self, predictions, references, items=False):
        pairs = zip(predictions, references, strict=True)
        scores = [float(plain(prediction) in {plain(a) for a in answers}) for prediction, answers in pairs]
        return {"exact_match": float(np.mean(scores))} | ({"exact_match_items": scores} if items else {})
