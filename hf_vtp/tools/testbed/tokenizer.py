"""One word-level tokenizer for all three models, made in code."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .scenes import COLORS, DIGITS, SHAPES, WORDS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
IMAGE, VIDEO, VISION_START, VISION_END = "<image>", "<video>", "<vision_start>", "<vision_end>"
SPECIAL = (PAD, EOS, UNKNOWN, IMAGE, VIDEO, VISION_START, VISION_END)
PLAIN = (
    *"a an and the how many objects object are there what color shape is where from".split(),
    *"word number written ? left right above below".split(),
)
VOCABULARY = {word: i for i, word in enumerate((*SPECIAL, *PLAIN, *COLORS, *SHAPES, *DIGITS, *WORDS))}


def make_tokenizer(add_eos: bool = False) -> PreTrainedTokenizerFast:
    """Words and punctuation marks by their place in VOCABULARY; with `add_eos` one EOS ends every text."""
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if add_eos:
        core.post_processor = processors.TemplateProcessing(
            f"$A {EOS}", special_tokens=[(EOS, VOCABULARY[EOS])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, VIDEO, VISION_START, VISION_END],
        padding_side="right" if add_eos else "left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def encode(text: str) -> list[int]:
    """Token ids of a text in lower case, faster than the tokenizer; raises KeyError on an unknown word."""
    return [VOCABULARY[word] for word in text.split()]
