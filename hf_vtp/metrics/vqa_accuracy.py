"""The soft accuracy of VQA: an answer that three people gave is fully right."""

import evaluate
import numpy as np

from ._info import info, vqa_words


def soft(prediction: str, answers: list) -> float:
    """min(1, people with the same answer / 3), averaged over leaving out each person in turn.

    Where fewer than three others answered, all of them have to agree; a single answer counts by itself.
    """
    if len(answers) < 2:
        return float(prediction in answers)
    needed = min(3, len(answers) - 1)
    same = [answer == prediction for answer in answers]
    return float(np.mean([min(1.0, (sum(same) - own) / needed) for own in same]))


class VQAAccuracy(evaluate.Metric):
    """Predictions: an answer; references: the answers that people gave, ten of them in VQAv2."""

    def _info(self):
        return info("VQA soft accuracy.", "text", "texts", "Antol et al., VQA, arXiv:1505.00468")

    def _compute(self, predictions, references, items=False):
        pairs = zip(predictions, references, strict=True)
        scores = [
            soft(vqa_words(prediction), [vqa_words(answer) for answer in answers])
            for prediction, answers in pairs
        ]
        return {"vqa_accuracy": float(np.mean(scores))} | ({"vqa_accuracy_items": scores} if items else {})
