"""Folders with a tiny model of any family and what makes its inputs, put together in code."""

import json

from families import made
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from hf_vtp.tools.image_processors import by_name
from hf_vtp.verifying.tiny.row_wise import PINPOINTS

WORDS, IMAGE, VIDEO, START, END = 40, 30, 31, 32, 33
TEMPLATE = (
    "{%% for m in messages %%}{%% for c in m.content %%}{%% if c.type == 'image' %%}w3 %s"
    "{%% else %%} {{ c.text }}{%% endif %%}{%% endfor %%}{%% endfor %%}"
)
SQUARE = {"height": 24, "width": 24}
# by model_type: the class of the image processor, its fields, the words for ids, the picture's mark, and the
# processor's own fields
MARK = {"<image>": IMAGE, "<video>": VIDEO}

SMALL = dict(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
LANGUAGE = {
    "idefics3": (  # SmolVLM's kin: its own processor wants one more package
        "Idefics3",
        dict(size={"longest_edge": 48}, max_image_size={"longest_edge": 24}, do_image_splitting=True),
        {"<image>": IMAGE, "<fake_token_around_image>": START, "<global-img>": END},
        "<image>",
        dict(image_seq_len=9),
    ),
    "internvl": (
        "GotOcr2",
        dict(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        {"<IMG_CONTEXT>": IMAGE, "<video>": VIDEO, "<img>": START, "</img>": END},
        "<IMG_CONTEXT>",
        dict(image_seq_length=9),
    ),
    "llava_next": (
        "LlavaNext",
        dict(SMALL, image_grid_pinpoints=PINPOINTS),
        MARK,
        "<image>",
        dict(patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1),
    ),
    "qwen3_vl": (
        "Qwen2VL",
        dict(patch_size=4, merge_size=2, size=dict(shortest_edge=64, longest_edge=4096)),
        {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<|vision_start|>": START, "<|vision_end|>": END},
        "<|vision_start|><|image_pad|><|vision_end|>",
        {},
    ),
    "llava_onevision": (
        "LlavaOnevision",
        dict(size={"height": 16, "width": 16}, image_grid_pinpoints=PINPOINTS),
        MARK,
        "<image>",
        dict(num_image_tokens=16, vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_2"),
    ),
}
NAMED = {"<img>": "start_image_token", "</img>": "end_image_token", "<IMG_CONTEXT>": "context_image_token"}
NAMED |= {"<video>": "video_token"}


def tokenizer(special=(), template=None):
    """One id a word: w3, w4 … and the special ones; others are w3."""
    special = dict(special)
    words = {f"w{i}": i for i in range(3, WORDS) if i not in special.values()}
    core = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2, **words, **special}, unk_token="w3"))
    core.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="w3",
        additional_special_tokens=list(special),
        model_specific_special_tokens={NAMED[word]: word for word in special if word in NAMED},
    )
    made.chat_template = template
    return made


def save_language(folder, model_type):
    """A folder with a model that answers and its processor."""
    base, fields, special, mark, own = LANGUAGE[model_type]
    model, _ = made(model_type, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type])
    model.save_pretrained(folder)
    words = tokenizer(special, TEMPLATE % mark)
    by_name(f"{base}ImageProcessor")(**fields).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(own))


def save_vision(folder, model_type, name):
    """A folder with a vision model and its image processor, with a tokenizer where it reads texts."""
    model, inputs = made(model_type, name)
    if name.endswith("ForImageClassification"):
        model.config.id2label = {i: f"class {i}" for i in range(model.config.num_labels)}
    model.save_pretrained(folder)
    if "spatial_shapes" in inputs:
        processor = by_name("Siglip2ImageProcessor")(patch_size=4, max_num_patches=16)
    else:
        side = inputs["pixel_values"].shape[-2]
        processor = by_name("ViTImageProcessor")(size={"height": side, "width": side})
    processor.save_pretrained(folder)
    if "input_ids" in inputs:
        tokenizer().save_pretrained(folder)
    return model
