"""How much [CLS], or a sample of the tokens, attends to each, as loops over one image."""

from .image import by_token, mean

OPTIONS = {"importance": [{"queries": 1}, {"queries": 5}]}


def importance(im, queries=64):
    length = len(im.attention[0])
    step = max(1, length // queries)
    asked = [0] if im.prefix else range(step // 2, length, step)
    rows = [rows[i] for rows in im.attention for i in asked]  # of all heads
    return by_token(im, [mean(column) for column in zip(*rows, strict=True)])
