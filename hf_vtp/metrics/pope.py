"""POPE's questions whether an object is there: accuracy, F1 of yes, and the share of yes."""

import re

import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from ._info import info


def says_yes(text: str) -> bool:
    """POPE's own rule: an answer is no if its first sentence has the word no or not, and yes otherwise."""
    words = re.findall(r"[a-z']+", text.split(".")[0].lower())
    return not {"no", "not"} & set(words)


class Pope(evaluate.Metric):
    """Predictions: an answer in words; references: "yes" or "no"."""

    def _info(self):
        return info("Accuracy, F1 and share of yes.", "text", "text", "Li et al., POPE, arXiv:2305.10355")

    def _compute(self, predictions, references, items=False):
        wrong = sorted({r for r in references if r.strip().lower() not in ("yes", "no")})
        if wrong:
            raise ValueError(f"references must be 'yes' or 'no', not {wrong[0]!r}")
        right = np.array([r.strip().lower() == "yes" for r in references])
        answered = np.array([says_yes(text) for text in predictions])
        result = {
            "pope_accuracy": float(accuracy_score(right, answered)),
            "pope_f1": float(f1_score(right, answered, zero_division=0.0)),
            "pope_yes": float(answered.mean()),
        }
        return result | ({"pope_accuracy_items": (right == answered).astype(float).tolist()} if items else {})
