"""Pictures, image processors and statistics that tests of drawing are made from."""

import numpy as np
import torch
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor

from hf_vtp import StageStats, VTPStats

PLAIN = dict(do_normalize=False, do_rescale=False)
SIDE = 24
SQUARE = dict(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **PLAIN)
PROCESSORS = {
    "crop": lambda: CLIPImageProcessor(**SQUARE),
    "small crop": lambda: CLIPImageProcessor(**{**SQUARE, "size": {"shortest_edge": 32}}),
    "crop beyond the picture": lambda: CLIPImageProcessor(**{**SQUARE, "size": {"shortest_edge": 16}}),
    "stretch": lambda: CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, **PLAIN
    ),
    "llava": lambda: LlavaImageProcessor(**SQUARE),
    "llava padded": lambda: LlavaImageProcessor(**SQUARE, do_pad=True, image_mean=[1.0] * 3),
}


def coordinates(width, height):
    """A picture whose red says how far right a pixel is and whose green how far down, both of 250."""
    x = np.linspace(0, 250, width).round().astype(np.uint8)
    y = np.linspace(0, 250, height).round().astype(np.uint8)
    return Image.fromarray(np.stack([*np.meshgrid(x, y), np.full((height, width), 255, np.uint8)], axis=-1))


def cell_centres(box, rows, columns):
    left, top, right, bottom = box
    xs = left + (np.arange(columns) + 0.5) * (right - left) / columns
    ys = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    return np.meshgrid(xs, ys)


def made_up(keep, assignment, grid=(1, 2, 3), scores=None, layer=0):
    count = int(np.prod(grid))
    scores = torch.arange(float(count)) if scores is None else scores
    stage = StageStats(
        layer, [torch.tensor(keep)], [torch.tensor(assignment)], [torch.ones(len(keep))], [scores]
    )
    return VTPStats([count], [len(keep)], [torch.tensor(keep)], [grid], [stage])
