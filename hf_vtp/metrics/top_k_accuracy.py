"""Top-k accuracy of ranked class ids."""

import evaluate
import numpy as np
from sklearn.metrics import accuracy_score

from ._info import info


class TopKAccuracy(evaluate.Metric):
    """Predictions: class ids, best first, at least max(k) of them; references: the right id."""

    def _info(self):
        return info("How often the right class is among the k first.", "ids", "id")

    def _compute(self, predictions, references, k=(1, 5), items=False):
        ranked, right = np.asarray(predictions), np.asarray(references)
        result = {}
        for n in k:
            hits = (ranked[:, :n] == right[:, None]).any(axis=1)
            predicted = np.where(hits, right, -1)  # no class has this id
            result[f"top_{n}"] = float(accuracy_score(right, predicted))
            if items:
                result[f"top_{n}_items"] = hits.astype(float).tolist()
        return result
