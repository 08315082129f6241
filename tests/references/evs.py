"""EVS, as loops over one clip."""

from .image import bounded, dot, ranked, units


def frame_change(im):
    size = im.grid[1] * im.grid[2]
    at, unit = {place: i for i, place in enumerate(im.place)}, units(im.states)
    before = [at.get(place - size) for place in im.place]
    return [255.0 if j is None else 1 - dot(unit[i], unit[j]) for i, j in enumerate(before)]


def first_frame(scores, im):
    first = sum(place < im.grid[1] * im.grid[2] for place in im.place)
    return sorted(ranked(scores)[: bounded(max(first, round(im.share * im.n)), im)])
