"""The share of the unpruned quality that is lost: 1 - pruned accuracy / baseline accuracy."""

import evaluate
import numpy as np

from ._info import info


class Lossyness(evaluate.Metric):
    """Predictions: the score of every item pruned; references: its score unpruned. Below 0 is a gain."""

    def _info(self):
        return info(
            "1 - pruned accuracy / baseline accuracy; None where the baseline is 0.", "number", "number"
        )

    def _compute(self, predictions, references):
        baseline = float(np.mean(references))
        return {"lossyness": 1 - float(np.mean(predictions)) / baseline if baseline else None}
