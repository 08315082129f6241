"""The soft accuracy of VQA: an answer that three people gave is right."""

import evaluate
import numpy as np

from ._info import info, vqa_words


def soft(said: str, answers: list) -> float:
    """Mean over the people left out of min(1, people among the others who said so / 3).

    Where fewer than three others answered, all of them have to agree; where there is one answer, it counts.
    """
    if len(answers) < 2:
        return float(said in answers)
    needed = min(3, len(answers) - 1)
    same = [answer == said for answer in answers]
    return float(np.mean([min(1.0, (sum(same) - own) / needed) for own in same]))


class VQAAccuracy(evaluate.Metric):
    """Predictions: an answer; references: the answers that people gave, ten of them in VQAv2."""

    def _info(self):
        return info("VQA soft accuracy.", "text", "texts", "Antol et al., VQA, arXiv:1505.00468")

    def _compute(self, predictions, references, items=False):
        pairs = zip(predictions, references, strict=True)
        scores = [soft(vqa_words(said), [vqa_words(a) for a in answers]) for said, answers in pairs]
        return {"vqa_accuracy": float(np.mean(scores))} | ({"vqa_accuracy_items": scores} if items else {})
