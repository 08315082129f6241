"""Cosine of embeddings with their references: mean, fifth percentile, minimum."""

import evaluate
import numpy as np
from sklearn.metrics.pairwise import paired_cosine_distances

from ._info import info


class EmbeddingCosine(evaluate.Metric):
    """Predictions and references: one embedding an item."""

    def _info(self):
        return info("Cosine of every embedding with its reference.", "vector", "vector")

    def _compute(self, predictions, references, items=False):
        pair = (np.asarray(x, dtype=np.float64) for x in (predictions, references))
        cosine = 1 - paired_cosine_distances(*pair)
        mean, low = float(cosine.mean()), float(np.percentile(cosine, 5))
        result = {"cosine_mean": mean, "cosine_p5": low, "cosine_min": float(cosine.min())}
        return result | ({"cosine_items": cosine.tolist()} if items else {})
