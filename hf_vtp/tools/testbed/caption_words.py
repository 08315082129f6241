"""A word-level tokenizer for captions, its vocabulary counted in those of the training split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .tokenizer import EOS, IMAGE, PAD, UNKNOWN

CAPTION = "<caption>"  # what a caption begins after
SPECIAL = (PAD, EOS, UNKNOWN, IMAGE, CAPTION)
RAREST = 3  # times that a word occurs to be one of the vocabulary
NORMAL = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w']+"), " ")])


def word_tokenizer(captions: Iterable[str]) -> PreTrainedTokenizerFast:
    """Lower-case words without punctuation, the frequent ones first; the rest is unknown."""
    counts = Counter(word for caption in captions for word in NORMAL.normalize_str(caption).split())
    frequent = sorted((-count, word) for word, count in counts.items() if count >= RAREST)
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *(word for _, word in frequent)))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = NORMAL
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=[IMAGE, CAPTION],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
