"""The score of a trained probe, as a loop over one image."""

from math import erf, sqrt

from safetensors import safe_open

from .image import dot, mean


def linear_probe(im, weights):
    with safe_open(weights, "numpy") as file:
        w = {name: file.get_tensor(name).astype(float).tolist() for name in file.keys()}
    scores = []
    for x in im.states:
        average = mean(x)
        spread = sqrt(mean((v - average) ** 2 for v in x) + 1e-5)
        x = [(v - average) / spread for v in x]
        x = [v * a + b for v, a, b in zip(x, w["norm.weight"], w["norm.bias"], strict=True)]
        if "hidden.weight" in w:
            x = [dot(x, row) + b for row, b in zip(w["hidden.weight"], w["hidden.bias"], strict=True)]
            x = [v * (1 + erf(v / sqrt(2))) / 2 for v in x]
        scores.append(dot(x, w["linear.weight"][0]) + w["linear.bias"][0])
    return scores
