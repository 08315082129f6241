"""The grid that features come from, of every form in which encoders return them."""

import pytest
import torch

from hf_vtp.towers.feature_grids import images_of

SQUARE, WIDE = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 16, 64)
CLIPS, TILES = torch.zeros(2, 3, 3, 32, 32), torch.zeros(1, 4, 3, 32, 32)
THW = torch.tensor([[1, 4, 8], [2, 4, 4]])


def features(*lengths):
    return [torch.randn(n, 5) for n in lengths]


@pytest.mark.parametrize(
    ("found", "pixels", "thw", "grids"),
    [
        (torch.randn(2, 16, 5), SQUARE, None, [(1, 4, 4)] * 2),
        (torch.randn(2, 16, 5), WIDE, None, [(1, 2, 8)] * 2),
        (torch.randn(2, 17, 5), SQUARE, None, [(1, 1, 17)] * 2),
        (torch.randn(2, 2, 8, 5), SQUARE, None, [(1, 2, 8)] * 2),  # rows and columns have axes
        (torch.randn(2, 12, 5), CLIPS, None, [(3, 2, 2)] * 2),  # three frames
        (torch.randn(2, 13, 5), CLIPS, None, [(1, 1, 13)] * 2),  # and a newline
        (torch.randn(4, 16, 5), TILES, None, [(1, 4, 4)] * 4),  # tiles are images of their own
        (features(16, 9, 17), SQUARE, None, [(1, 4, 4), (1, 3, 3), (1, 1, 17)]),
        (features(8, 8), torch.zeros(64, 12), THW, [(1, 2, 4), (2, 2, 2)]),  # merged 2 × 2
        (features(8, 4), torch.zeros(64, 12), THW, [(1, 2, 4), (1, 2, 2)]),  # frames averaged
        (torch.randn(16, 5), torch.zeros(64, 12), THW, [(1, 2, 4), (2, 2, 2)]),  # all in one
        (torch.randn(24, 5), SQUARE, None, [(1, 1, 20), (1, 1, 4)]),  # split by prompts
        (torch.randn(25, 5), SQUARE, None, [(1, 1, 25)]),  # which do not add up
    ],
)
def test_grids_are_known_where_something_says_so(found, pixels, thw, grids):
    rows, named = images_of(found, [20, 0, 4], pixels, thw)
    assert named == grids
    assert [len(row) for row in rows] == [t * h * w for t, h, w in grids]
    whole = found.flatten(0, -2) if isinstance(found, torch.Tensor) else torch.cat(found)
    assert torch.equal(torch.cat(rows), whole)


def test_the_grid_of_an_image_depends_on_no_other():
    alone = images_of(features(16), [16], SQUARE[:1], None)[1]
    together = images_of(features(16, 12), [16, 12], WIDE, None)[1]
    assert alone[0] == together[0]
