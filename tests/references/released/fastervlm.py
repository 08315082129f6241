"""FasterVLM: what [CLS] attends to most."""

from .arrays import cls_attention, kept, ranked

INPUTS = ("q", "k", "hidden")
CASES = [{"num_keep": 13}, {"num_keep": 32}]


def outputs(x, case):
    return kept(sorted(ranked(cls_attention(x))[: case["num_keep"]]))
