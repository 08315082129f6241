"""Tiny vision-language models, prompts for them, and the masked reference that shares no code with hf_vtp."""

import inspect

import torch
from models import sharpen, vision_config
from qwen import Qwen, Qwen2
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
)
from transformers.cache_utils import Cache

from hf_vtp import vtp_stats

IMAGE, PAD, EOS, VOCAB = 90, 0, 91, 97


class Llava:
    """LLaVA over a CLIP of 4 layers, of which it reads 3, and 36 patches."""

    name = "llava"
    embeds_are_ids = True

    text_sizes = dict(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        max_position_embeddings=1024,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
    )

    @classmethod
    def model(cls, seed=0, implementation="sdpa", text=None, **changes):
        torch.manual_seed(seed)
        config = LlavaConfig(
            text_config=text or LlamaConfig(**cls.text_sizes),
            image_token_id=IMAGE,
            image_seq_length=36,
            **{"vision_config": vision_config(), "vision_feature_layer": -2, **changes},
        )
        model = LlavaForConditionalGeneration._from_config(config, attn_implementation=implementation)
        sharpen(model)
        with torch.no_grad():
            model.lm_head.weight.normal_(std=0.5)
            model.model.language_model.embed_tokens.weight.normal_(std=0.5)
        model.generation_config.pad_token_id = PAD
        model.generation_config.suppress_tokens = [IMAGE]
        return model.eval()

    @classmethod
    def windowed(cls, window):
        """The same over a Mistral, whose layers attend to `window` columns."""
        return cls.model(text=MistralConfig(**cls.text_sizes, sliding_window=window))

    @staticmethod
    def inputs(rows=(1, 0, 3), seed=1, side="left", per_image=36, tail=5):
        """A batch whose rows hold that many images, with text of different lengths around them."""
        g = torch.Generator().manual_seed(seed)
        text = lambda n: torch.randint(1, 80, (n,), generator=g).tolist()  # noqa: E731
        ids = []
        for r, images in enumerate(rows):
            row = text(2 + r)
            for _ in range(images):
                row += [IMAGE] * per_image + text(2)
            ids.append(row + text(tail + (r % 2)))
        n = max(map(len, ids))
        left = side == "left"
        padded = [[PAD] * (n - len(i)) + i if left else i + [PAD] * (n - len(i)) for i in ids]
        ones = [[0] * (n - len(i)) + [1] * len(i) if left else [1] * len(i) + [0] * (n - len(i)) for i in ids]
        inputs = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(ones)}
        if sum(rows):
            inputs["pixel_values"] = torch.randn(sum(rows), 3, 24, 24, generator=g)
        return inputs

    @staticmethod
    def kept(model, prefix=0):
        """Which placeholders of the last forward were kept, in their order."""
        stats = vtp_stats(model)
        flags = []
        for n, keep in zip(stats.num_tokens, stats.keep_indices, strict=True):
            flag = torch.zeros(prefix + n, dtype=torch.bool)
            flag[:prefix] = True
            flag[keep + prefix] = True
            flags.append(flag)
        return torch.cat(flags)

    @staticmethod
    def reference(model, inputs, prefix=0, generating=False, **told):
        """The full prompt with the kept features in place and the dropped placeholders masked as keys.

        `model` is the pruned model; its language model is run by the caller on an unpatched twin.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"].clone()
        features = model.model.get_image_features(
            inputs["pixel_values"], return_dict=True, **told
        ).pooler_output
        kept = Llava.kept(model, prefix)
        features = torch.cat(list(features))  # with a row for each placeholder
        assert torch.equal(features.isnan().any(-1), ~kept)
        embeds = model.get_input_embeddings()(ids).clone()
        where = torch.nonzero(ids == IMAGE)
        embeds[where[kept][:, 0], where[kept][:, 1]] = features[kept]
        embeds[where[~kept][:, 0], where[~kept][:, 1]] = 7.0  # never to be seen
        if generating:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
        else:
            positions = torch.arange(ids.shape[1]).expand_as(ids)
        alive = mask.clone()
        alive[where[~kept][:, 0], where[~kept][:, 1]] = 0
        return {"inputs_embeds": embeds, "attention_mask": alive, "position_ids": positions}

    @staticmethod
    def text_models():
        """Language models alone with the same vocabulary, to assist."""
        torch.manual_seed(4)
        return [LlamaForCausalLM(Llava.model().config.text_config).eval()]

    @staticmethod
    def row(inputs, r, start, images):
        """One row of a batch, its images the `images` from `start` on."""
        alone = {k: inputs[k][r : r + 1] for k in ("input_ids", "attention_mask")}
        return alone | ({"pixel_values": inputs["pixel_values"][start : start + images]} if images else {})

    @staticmethod
    def merge(first, media, rows, images):
        """The pixels of a conversation whose second turn brought `images` images to every row."""
        if "pixel_values" not in media:
            return {k: v for k, v in first.items() if k == "pixel_values"}
        ordered, start = [], 0
        for r, n in enumerate(rows):
            ordered += [*first["pixel_values"][start : start + n]] if n else []
            ordered += [*media["pixel_values"][r * images : (r + 1) * images]]
            start += n
        return {"pixel_values": torch.stack(ordered)}

    @staticmethod
    def compact_positions(inputs, full):
        """Positions of the full prompt when only what stays is counted."""
        return (full["attention_mask"].cumsum(-1) - 1).clamp(min=0)

    @staticmethod
    def types(ids):
        """Further arguments with one entry per column."""
        return {}

    @staticmethod
    def next_position(full):
        """Where text goes on behind the full prompt."""
        return full["position_ids"][..., -1:] + 1

    @staticmethod
    def ending_in_an_image():
        """A batch whose rows end in a placeholder."""
        inputs = Llava.inputs((1, 2), tail=0)
        ids = [
            row[: max(i for i, t in enumerate(row) if t == IMAGE) + 1] for row in inputs["input_ids"].tolist()
        ]
        ids = [[t for t in row if t != PAD] for row in ids]
        n = max(map(len, ids))
        inputs["input_ids"] = torch.tensor([[PAD] * (n - len(i)) + i for i in ids])
        inputs["attention_mask"] = (inputs["input_ids"] != PAD).long()
        return inputs


FAMILIES = {family.name: family for family in (Llava, Qwen, Qwen2)}


def cache_of(output):
    """The cache in an output: `cache` since 5.24, `past_key_values` before."""
    return output.cache if hasattr(output, "cache") else output.past_key_values


def cached(source):
    """A cache, or that of an output, as the argument that this Transformers calls it."""
    cache = source if isinstance(source, Cache) else cache_of(source)
    new = "cache" in inspect.signature(LlavaForConditionalGeneration.forward).parameters
    return {"cache" if new else "past_key_values": cache}


def masked(family, model, inputs, **arguments):
    """New tokens of an unpatched twin that reads the full prompt with dropped placeholders masked."""
    model(**inputs)  # leaves the statistics of these images
    return family.model().generate(**family.reference(model, inputs, generating=True), **arguments)


def new_tokens(sequences, inputs):
    n = inputs["input_ids"].shape[1]
    assert torch.equal(
        sequences[:, :n], inputs["input_ids"].repeat_interleave(len(sequences) // len(inputs["input_ids"]), 0)
    )
    return sequences[:, n:]


def widened(alive):
    """For each column the one whose row it must show: itself, or the last alive before; -1 for none."""
    source = torch.full_like(alive, -1)
    for b in range(alive.shape[0]):
        last = -1
        for c in range(alive.shape[1]):
            last = c if alive[b, c] else last
            source[b, c] = last
    return source


def expected_rows(logits, alive):
    """Reference logits brought to the shape the caller sees."""
    source = widened(alive)
    rows = torch.stack([logits[b, source[b].clamp(min=0)] for b in range(len(source))])
    return rows.masked_fill(source[..., None] < 0, 0)
