"""Folders with the config of a tiny model of a family, its tokenizer and image processor, without weights."""

import json

from evaluation import word_tokenizer
from families import classes, made
from transformers import LlavaNextImageProcessor, LlavaOnevisionImageProcessor

SIZES = {  # by family, its image processor and how the size of a picture is said to it
    "llava_next": (LlavaNextImageProcessor, lambda side: {"size": {"shortest_edge": side}}),
    "llava_onevision": (LlavaOnevisionImageProcessor, lambda side: {"size": {"height": side, "width": side}}),
}


def save_with_processor(folder, model_type):
    """The config of the family's tiny model, a tokenizer of words and an image processor of its size."""
    folder.mkdir()
    (name,) = classes(model_type)
    config = made(model_type, name)[0].config
    side = config.vision_config.image_size
    kind, size = SIZES[model_type]
    crop = {"crop_size": {"height": side, "width": side}}
    kind(**size(side), **crop, image_grid_pinpoints=config.image_grid_pinpoints).save_pretrained(folder)
    word_tokenizer(**{"<pad>": 0, "<image>": config.image_token_id}).save_pretrained(folder)
    config.save_pretrained(folder)
    tokens = (side // config.vision_config.patch_size) ** 2
    saved = {
        "num_image_tokens": tokens,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }
    (folder / "processor_config.json").write_text(json.dumps(saved))
    return folder
