"""FoPru's rows of the image, as a loop over one image."""

from math import fsum

from .image import ranked


def image_rows(scores, im):
    rows = {}
    for i, p in enumerate(im.place):
        rows.setdefault(p // im.grid[2], []).append(i)
    best_first = sorted(rows, key=lambda row: (-fsum(scores[i] for i in rows[row]), row))
    kept = []
    for row in best_first:
        kept += ranked(scores, rows[row])[: im.num_keep - len(kept)]
    return sorted(kept)
