"""FlowCut: (attention + softmax(v_cls · v)) · |v|, accumulated over layers; the count follows the entropy."""

import math

import numpy as np

from .arrays import attention, ranked, softmax, tower

INPUTS = ("q", "k", "v", "q_other", "k_other", "v_other", "hidden")
CASES = [
    {"num_keep": 13, "remaining": 4},
    {"num_keep": 32, "remaining": 2},
    {"num_keep": 32, "remaining": 0},
]
STAGE_LAYERS = list(range(1, 22, 2))  # of its LLaVA, whose features are those of layer 22
MOMENTUM = 0.5


def of_layer(q, k, v):
    """What one layer says of every token, [64], and the attention of [CLS], [64]."""
    seen = attention(q, k)[:, 0].mean(axis=0)[1:]
    like = softmax(np.einsum("hd,hnd->hn", v[:, 0], v)).mean(axis=0)[1:]
    strength = np.abs(v.mean(axis=0)).sum(axis=-1)[1:]
    return (seen / seen.sum() + like / like.sum()) * strength, seen


def outputs(x, case):
    first, _ = of_layer(x["q_other"], x["k_other"], x["v_other"])
    second, seen = of_layer(x["q"], x["k"], x["v"])
    score = MOMENTUM * first + (1 - MOMENTUM) * second
    n, target = len(score), case["num_keep"]
    stay = target
    if case["remaining"]:
        chance = seen / seen.sum()
        spread = -sum(p * math.log(p) for p in chance) / math.log(n)
        stay = n - round((n - target) / math.sqrt(case["remaining"]) * (1 - spread**2))
    keep = sorted(ranked(score)[:stay])
    return {
        "keep_order": keep,
        "keep": keep,
        "values": tower(x)[keep],
        "scores_first_layer": first,
        "scores": score,
    }


def whole(case):
    """What belongs to no image."""
    return {"stage_layers": STAGE_LAYERS}
