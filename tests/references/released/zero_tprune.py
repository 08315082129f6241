"""Zero-TPrune: weighted page rank on the attention graph, as a third party reads it."""

import numpy as np

from .arrays import attention

INPUTS = ("q", "k", "hidden")
CASES = [{"iterations": 1}, {"iterations": 5}]


def outputs(x, case):
    table, total = attention(x["q"], x["k"]), 0.0
    for head in table:
        s = np.full(len(head), 1 / len(head))
        for _ in range(case["iterations"]):
            s = head.T @ s
        total = total + s**2
    return {"scores": np.sqrt(total)[1:]}
