"""The cases of a vision tower, each with the keep_ratio that costs the wanted share of FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from PIL import Image
from tqdm import tqdm

from .cases import DOWNSAMPLE, Case
from .clip import VisionSide
from .equal_flops import FlopShares, Solved, solve, solve_ratio
from .rows import by_row

IMAGES = 8  # on which the FLOPs of methods are counted whose number of tokens follows the image


def at_equal_flops(vision: VisionSide, cases: Sequence[Case], images: Sequence[Image.Image]) -> list[Case]:
    """The cases with their ratios solved; those that ask for no share of FLOPs as they are.

    All are counted on the first of `images`, or on several where the number of tokens follows the image.
    """
    unpruned = Case()
    inputs = [vision.inputs([image], [unpruned]) for image in images[:IMAGES]]
    shares = FlopShares(vision.model, [partial(vision.forward, unpruned, one) for one in inputs])

    def smaller(keep_ratio: float) -> float:
        case = Case(DOWNSAMPLE, keep_ratio)
        return shares.of_call(partial(vision.forward, case, vision.inputs(images[:1], [case])))

    solved: dict[tuple, Solved] = {}
    wanted = {key: same[0] for key, same in by_row(cases).items() if same[0].flops is not None}
    for key, case in tqdm(wanted.items(), desc="FLOPs", leave=False):
        if case.config is None:
            solved[key] = solve_ratio(smaller, case.flops)
        else:
            solved[key] = solve(case.config, case.flops, shares)
    return [case.at(solved[case.row]) if case.row in solved else case for case in cases]
