"""MMTok: greedy coverage of the text's vectors and of the image's tokens."""

import numpy as np

from .arrays import greedy, kept, projected, softmax, tower, unit

INPUTS = ("hidden", "text", "w1", "w2")
CASES = [{"num_keep": 13}, {"num_keep": 32}]


def chosen(text, joint, vision, temperature, count):
    t, v, own = unit(text), unit(joint), unit(vision)
    to_text = softmax(t @ v.T / temperature) / len(t)
    to_image = softmax(own @ own.T / 0.2) / len(own)
    rows = np.concatenate([to_text, 0.5 * to_image])

    def gain(j, those):
        cover = rows[:, those].max(axis=1, initial=0.0)
        return np.maximum(0.0, rows[:, j] - cover).sum()

    return greedy(count, gain)


def outputs(x, case):
    count, joint, text = case["num_keep"], projected(x), x["text"]
    return {
        **kept(sorted(chosen(text, joint, tower(x), 0.02, count))),
        "keep_temperature_01": sorted(chosen(text, joint, tower(x), 0.01, count)),
        "keep_q_projected_temperature_01": sorted(chosen(text, joint, joint, 0.01, count)),
    }
