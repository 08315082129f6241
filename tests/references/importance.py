"""The loop of `importance`."""

from .image import by_token, mean, salience

OPTIONS = {"importance": [{"queries": 1}, {"queries": 5}, {"queries": 7}]}


def importance(im, queries=64):
    if im.prefix:
        return salience(im)
    length = len(im.query[0])
    step = max(1, length // queries)
    asked = [i for i in range(length) if i % step == step // 2]
    return by_token(im, [mean(row[i][j] for row in im.attention for i in asked) for j in range(length)])
