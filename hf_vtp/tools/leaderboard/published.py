"""Figures that others published, quoted beside ours and never mixed with them."""

SOURCE = "https://github.com/facebookresearch/ToMe (README), ImageNet-1k val, off the shelf, one V100"
LISTED = (
    "the results listed for arXiv:2210.09461 by Papers with Code, which do not say whether the model was "
    "trained with merging; DeiT-T has 72.2 and DeiT-S 79.8 without it (arXiv:2012.12877)"
)
HEADINGS = ["model", "r a layer", "top-1 without", "top-1 with ToMe", "speed or cost", "source"]
TOME = [
    ["ViT-S/16", "13", "81.41", "79.30", "953 to 1564 images/s", "[1]"],
    ["ViT-B/16", "13", "84.57", "82.60", "309 to 511 images/s", "[1]"],
    ["ViT-L/16", "7", "85.82", "84.26", "95 to 167 images/s", "[1]"],
    ["ViT-L/16 at 384", "23", "86.92", "86.14", "28 to 56 images/s", "[1]"],
    ["DeiT-T/16", "8", "72.2", "71.7", "0.9 GFLOPs", "[2]"],
    ["DeiT-T/16", "12", "72.2", "71.4", "0.8 GFLOPs", "[2]"],
    ["DeiT-T/16", "16", "72.2", "70.7", "0.6 GFLOPs", "[2]"],
    ["DeiT-S/16", "8", "79.8", "79.7", "3.4 GFLOPs", "[2]"],
    ["DeiT-S/16", "13", "79.8", "79.4", "2.7 GFLOPs", "[2]"],
    ["DeiT-S/16", "16", "79.8", "79.1", "2.3 GFLOPs", "[2]"],
]
