"""Recall at k of a retrieval: whether one of the relevant is among the k first."""

import evaluate
import numpy as np

from ._info import info


class RecallAtK(evaluate.Metric):
    """Predictions: retrieved ids, best first; references: the ids that are relevant."""

    def _info(self):
        return info("How often one of the relevant is among the k first retrieved.", "ids", "ids")

    def _compute(self, predictions, references, k=(1, 5, 10), items=False):
        result = {}
        for n in k:
            pairs = zip(predictions, references, strict=True)
            hits = [float(bool(set(ranked[:n]) & set(relevant))) for ranked, relevant in pairs]
            result[f"recall_at_{n}"] = float(np.mean(hits))
            if items:
                result[f"recall_at_{n}_items"] = hits
        return result
