"""Tokens lie where the image processor took them from: padding, crops and stretching undone."""

import numpy as np
import pytest
import torch
from drawn import PLAIN, PROCESSORS, SIDE, SQUARE, cell_centres, coordinates
from transformers import CLIPImageProcessor, Qwen2VLImageProcessor

from hf_vtp.tools.image_processors import by_name
from hf_vtp.visualize.geometry import boxes, covered

SmolVLMImageProcessor, GotOcr2ImageProcessor, LlavaNextImageProcessor = (
    by_name(f"{name}ImageProcessor") for name in ("SmolVLM", "GotOcr2", "LlavaNext")
)
pytestmark = pytest.mark.models
SIZES = [(200, 200), (300, 200), (200, 300), (417, 203), (90, 250)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", PROCESSORS)
def test_patches_are_where_the_processor_took_them_from(name, size):
    """What the real processor made of coordinates tells where each patch lies."""
    processor, grid = PROCESSORS[name](), 6
    seen = np.asarray(
        processor(images=coordinates(*size), return_tensors="np")["pixel_values"][0], dtype=float
    )
    seen = seen.reshape(3, grid, SIDE // grid, grid, SIDE // grid).mean(axis=(2, 4))
    xs, ys = cell_centres(covered(size, (1, grid, grid), processor), grid, grid)
    cell = (xs[0, 1] - xs[0, 0]) / size[0] * 250, (ys[1, 0] - ys[0, 0]) / size[1] * 250
    # patches wholly on the picture: padding says nothing of where it is
    on = (seen[2] > 250) & (xs >= 0) & (xs <= size[0]) & (ys >= 0) & (ys <= size[1])
    if "padded" in name:  # its padding is as blue as the picture
        half = (xs[0, 1] - xs[0, 0]) / 2, (ys[1, 0] - ys[0, 0]) / 2
        on &= (xs >= half[0]) & (xs <= size[0] - half[0]) & (ys >= half[1]) & (ys <= size[1] - half[1])
    assert on.any()
    assert np.abs(seen[0] - xs / size[0] * 250)[on].max() < max(2.5, 0.35 * cell[0])
    assert np.abs(seen[1] - ys / size[1] * 250)[on].max() < max(2.5, 0.35 * cell[1])


@pytest.mark.parametrize("size", [(100, 60), (60, 133), (20, 30)], ids=str)
def test_qwens_units_cover_the_whole_picture(size):
    processor = Qwen2VLImageProcessor(patch_size=4, merge_size=2, **PLAIN)
    made = processor(images=coordinates(*size), return_tensors="pt")
    _, rows, columns = (made["image_grid_thw"][0] // torch.tensor([1, 2, 2])).tolist()
    patches = made["pixel_values"].reshape(rows, columns, 4, 3, 2, 16).float().mean(dim=(2, 4, 5)).numpy()
    for known in (processor, None):
        xs, ys = cell_centres(covered(size, (1, rows, columns), known), rows, columns)
        assert np.abs(patches[..., 0] - xs / size[0] * 250).max() < 8
        assert np.abs(patches[..., 1] - ys / size[1] * 250).max() < 8


def test_without_the_processor_a_crop_is_refused_not_stretched():
    with pytest.raises(ValueError, match="give the image processor"):
        covered((300, 200), (1, 6, 6))
    assert covered((200, 200), (1, 6, 6)) == (0, 0, 200, 200)


@pytest.mark.parametrize("name", ["bounded", "padded squares"])
def test_steps_that_nobody_described_are_measured(name):
    kwargs = {
        "bounded": dict(size={"max_height": 24, "max_width": 24}, do_center_crop=False),
        "padded squares": dict(SQUARE, do_pad=True),
    }[name]
    box = covered((300, 200), (1, 6, 6), CLIPImageProcessor(**{**PLAIN, **kwargs}))
    wanted = (0, 0, 300, 200) if name == "bounded" else (50, 0, 250, 200)
    assert box == pytest.approx(wanted, abs=3)


@pytest.mark.parametrize("size", [(640, 300), (300, 640), (200, 200)], ids=str)
def test_the_images_that_a_picture_is_cut_into_lie_where_the_processor_cut(size):
    """Patches of every tile say by their colours where they are from; the tiles cover the whole picture."""
    processors = [
        SmolVLMImageProcessor(
            size={"longest_edge": 96}, max_image_size={"longest_edge": 24}, do_image_splitting=True
        ),
        GotOcr2ImageProcessor(size={"height": 24, "width": 24}, crop_to_patches=True, max_patches=6),
        LlavaNextImageProcessor(**SQUARE, image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]]),
    ]
    for processor in processors:
        made = processor(images=[coordinates(*size)], return_tensors="pt", **PLAIN)["pixel_values"]
        tiles = made.float().flatten(0, -4)
        found = boxes(size, (1, 6, 6), processor)
        assert len(found) == len(tiles) and (len(tiles) > 1 or size == (200, 200))
        covers = np.zeros(size, dtype=bool)
        for tile, box in zip(tiles, found, strict=True):
            seen = tile.unflatten(1, (6, 4)).unflatten(3, (6, 4)).mean(dim=(2, 4)).numpy()
            xs, ys = cell_centres(box, 6, 6)
            on = seen[2] > 252
            assert on.any()
            assert (
                np.abs(seen[0] - xs / size[0] * 250)[on].max() < 0.35 * 250 * (box[2] - box[0]) / 6 / size[0]
            )
            assert (
                np.abs(seen[1] - ys / size[1] * 250)[on].max() < 0.35 * 250 * (box[3] - box[1]) / 6 / size[1]
            )
            if box[2] - box[0] < size[0] or box[3] - box[1] < size[1]:
                left, top, right, bottom = (max(0, round(edge)) for edge in box)
                covers[left:right, top:bottom] = True
        assert len(tiles) == 1 or covers[2:-2, 2:-2].mean() > 0.97
