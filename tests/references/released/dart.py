"""DART: pivots with long keys take turns, each its least similar tokens of what is left."""

import numpy as np

from .arrays import COUNT, one_head, ranked, unit

INPUTS = ("k", "hidden", "text_key", "text_hidden")
CASES = [{"num_keep": 16, "per_pivot": 1}, {"num_keep": 32, "per_pivot": 3}]
PIVOTS = 8


def pivots_of(x, image, text):
    """Pivots by falling L1 norm of the key, image before text; those of the text are counted from 64 on."""
    norms = np.abs(np.concatenate([one_head(x["k"])[1:], one_head(x["text_key"])])).sum(axis=-1)
    return ranked(norms, range(COUNT))[:image] + ranked(norms, range(COUNT, len(norms)))[:text]


def chosen(x, turns, per_pivot):
    """In the order taken: the image pivots ascending, then what each pivot takes in its turn."""
    states = unit(np.concatenate([x["hidden"][1:], x["text_hidden"]]))
    keep = sorted(p for p in turns if p < COUNT)
    for pivot in turns:
        like = states @ states[pivot]
        keep += ranked(-like, [i for i in range(COUNT) if i not in keep])[:per_pivot]
    return keep


def outputs(x, case):
    out = {}
    for suffix, image, text in (("", PIVOTS, 0), ("_4_image_4_text", 4, 4)):
        pivots = pivots_of(x, image, text)
        for by, turns in (("index", sorted(pivots)), ("norm", pivots)):
            out[f"keep_turns_by_{by}{suffix}"] = sorted(chosen(x, turns, case["per_pivot"]))
    return out
