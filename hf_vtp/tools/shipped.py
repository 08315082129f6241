"""The trained models of a testbed, where their folder is given, and tiny stand-ins for them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from .bench.cli import UsageError
from .image_processors import CLIPImageProcessor, Qwen2VLImageProcessor
from .models import Loaded, load_with_processor
from .processors import assemble

VARIABLE = "HF_VTP_TESTBED"  # of the environment: a folder with one for each trained model, by model_type
TESTBED_HELP = f"folder of the trained testbed, with one for each model in it; default: what {VARIABLE} says"
SIDE, PATCH, WIDTH, LAYERS = 96, 8, 64, 4
SPECIAL = ("<pad>", "<eos>", "<unk>", "<image>", "<video>", "<vision_start>", "<vision_end>")
WORDS = (
    *SPECIAL,
    *"a an the what is where how many are there ? red green blue one two three cat dog".split(),
)
TOKEN = {word: i for i, word in enumerate(WORDS)}
VISION = dict(
    hidden_size=WIDTH,
    intermediate_size=2 * WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    image_size=SIDE,
    patch_size=PATCH,
    projection_dim=WIDTH,
)
TEXT = dict(
    vocab_size=len(WORDS),
    hidden_size=WIDTH,
    intermediate_size=2 * WIDTH,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=4096,
    pad_token_id=TOKEN["<pad>"],
    bos_token_id=None,
    eos_token_id=TOKEN["<eos>"],
)


def shipped_folder(name: str, testbed: str | Path | None = None) -> Path | None:
    """The folder of the trained model of that name; None without one, or where no testbed is given.

    `testbed` is the folder of all of them, by default the environment's HF_VTP_TESTBED. Raises UsageError for
    a testbed that does not exist.
    """
    folder = testbed or os.environ.get(VARIABLE)
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise UsageError(
            f"there is no folder {folder}; give the testbed's, with {', '.join(STAND_INS)} in it"
        )
    return Path(folder, name) if Path(folder, name, "config.json").is_file() else None


def open_model(name: str, device: str = "cpu", testbed: str | Path | None = None) -> tuple[Loaded, bool]:
    """A model with its processor, and whether its weights are trained.

    Those of STAND_INS are the testbed's (see `shipped_folder`), or without a testbed tiny ones, whose random
    weights say nothing about a picture. Any other name is a folder or a model on the Hub.
    """
    if name not in STAND_INS:
        return load_with_processor(name, device), True
    folder = shipped_folder(name, testbed)
    if folder is not None:
        return load_with_processor(str(folder), device), True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = STAND_INS[name]()
    loaded.model.to(device).eval()
    return loaded, False


def _tokenizer(ending: bool = False) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel(TOKEN, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ending:  # CLIP reads a text at its end
        end = [("<eos>", TOKEN["<eos>"])]
        core.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=end)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[3:]),
    )


def _square() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def _clip() -> Loaded:
    shared = {k: TEXT[k] for k in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    ids = {name: TEXT[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    text = dict(shared, **ids, num_attention_heads=4, projection_dim=WIDTH)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=WIDTH))
    return Loaded(model, assemble(model.config, _square(), _tokenizer(ending=True)))


def _llava() -> Loaded:
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION},
        text_config={"model_type": "llama", **TEXT},
        image_token_id=TOKEN["<image>"],
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    model = _without_markers(LlavaForConditionalGeneration(config))
    return Loaded(model, assemble(config, _square(), _tokenizer()))


def _qwen2_5_vl() -> Loaded:
    vision = dict(
        depth=LAYERS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_heads=4,
        patch_size=PATCH,
        window_size=8 * PATCH,
        fullatt_block_indexes=[1, 3],
        out_hidden_size=WIDTH,
    )
    rope = dict(rope_type="default", rope_theta=1e4, mrope_section=[2, 3, 3])
    names = ("image", "video", "vision_start", "vision_end")
    ids = {f"{name}_token_id": TOKEN[f"<{name}>"] for name in names}
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=dict(TEXT, rope_parameters=rope), **ids)
    sizes = {"shortest_edge": SIDE**2, "longest_edge": (4 * SIDE) ** 2}
    image_processor = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, size=sizes)
    model = _without_markers(Qwen2_5_VLForConditionalGeneration(config))
    return Loaded(model, assemble(config, image_processor, _tokenizer()))


def _without_markers(model):
    """The model answering in words, however meaningless, and not in markers."""
    model.generation_config.suppress_tokens = [TOKEN[word] for word in SPECIAL if word != "<eos>"]
    return model


STAND_INS = {"clip": _clip, "llava": _llava, "qwen2_5_vl": _qwen2_5_vl}
SEEING, ANSWERING, _ = STAND_INS  # that which compares pictures with captions, and one that answers
