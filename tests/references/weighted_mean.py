"""Groups as their weighted mean, at the mean length of their tokens, as a loop over one image."""

from math import fsum

from .image import mean_vector, norm
from .mergers import joined


def weighted_mean(im, keep):
    groups = joined(keep, im.cos) if im.groups is None else im.groups
    weights = im.sizes if im.group_weights is None else im.group_weights
    width = len(im.content[0]) // im.patches
    states, sizes = [], []
    for g in range(len(keep)):
        members = [i for i in range(im.n) if groups[i] == g]
        own, state = [weights[i] for i in members], []
        for start in range(0, len(im.content[0]), width):
            patches = [im.content[i][start : start + width] for i in members]
            mean = mean_vector(patches, own)
            length = mean_vector([[norm(patch)] for patch in patches], own)[0]
            state += [x * length / max(norm(mean), 1e-12) for x in mean]
        states.append(state)
        sizes.append(fsum(im.sizes[i] for i in members))
    return states, groups, sizes, None
