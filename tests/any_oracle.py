"""An oracle for models pruned after their features: a twin whose encoders give what the prompt is to hold.

It shares no code with hf_vtp. The unpruned twin reads all ids and pixels; its encoders give the kept features
in their rows and a loud number in those of dropped ones, which are masked in the prompt.
"""

import functools
from contextlib import contextmanager

import torch
from transformers.utils import ModelOutput
from vlm import expected_rows

from hf_vtp import apply_vtp, vtp_stats

NEVER_SEEN = 7.0
NAMES = ("image", "video")
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


class Twins:
    """A pruned model, an unpruned twin with its weights, and a batch; `how` is a method that drops."""

    def __init__(self, make, **how):
        (self.model, self.inputs), (self.twin, _) = make(), make()
        self.how = how
        apply_vtp(self.model, **how)
        config = self.twin.config
        names = {medium: (f"{medium}_token_id", f"{medium}_token_index") for medium in NAMES}
        found = {m: [getattr(config, n) for n in ns if hasattr(config, n)] for m, ns in names.items()}
        self.tokens = {medium: ids[0] for medium, ids in found.items() if ids}
        self.words = dict(do_sample=False, pad_token_id=0, suppress_tokens=list(self.tokens.values()))

    def kept(self):
        """Which features of all images the pruned model's last forward kept, bool [T], in its order."""
        stats = vtp_stats(self.model)
        flags = [
            torch.zeros(n, dtype=torch.bool).index_fill(0, keep, True)
            for n, keep in zip(stats.num_tokens, stats.keep_indices, strict=True)
        ]
        return torch.cat(flags)

    @contextmanager
    def masked(self, inputs, decode=False):
        """The twin's arguments with dropped placeholders masked; its encoders give kept features only."""
        with torch.no_grad():
            self.model(**inputs)
        kept, inner = self.kept(), inner_of(self.twin)
        ids, alive, start = inputs["input_ids"], inputs["attention_mask"].clone(), 0
        flags = {}
        for medium, token in self.tokens.items():
            where = ids == token
            if where.any():
                flags[medium] = kept[start : start + int(where.sum())]
                start += int(where.sum())
                alive[where] = flags[medium].to(alive)
        assert start == len(kept) and not kept.all()
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        if not decode:
            positions = torch.arange(ids.shape[1]).expand_as(ids)
        if self.how.get("positions") == "compact":
            positions = (alive.cumsum(-1) - 1).clamp(min=0)

        def giving(name, original):
            order = [m for m in flags if hasattr(inner, f"get_{m}_features") or name == "image"]
            order = [m for m in order if m == name or not hasattr(inner, f"get_{m}_features")]

            @functools.wraps(original)
            def call(*args, **kwargs):
                order.append(order.pop(0))
                medium, given = order[-1], args[0] if args else next(iter(kwargs.values()))
                beams = len(given) // len(inputs[PIXELS[medium]])
                if beams > 1:  # images were repeated one by one, which puts those of a row in a wrong order
                    args = tuple(x[::beams] for x in args)
                    kwargs = {k: x[::beams] if isinstance(x, torch.Tensor) else x for k, x in kwargs.items()}
                output = loud(original(*args, **kwargs), flags[medium])
                counts = (ids == self.tokens[medium]).sum(dim=1).tolist()
                return output if beams < 2 else repeated(output, counts, beams)

            return call

        names = [name for name in NAMES if hasattr(inner, f"get_{name}_features")]
        for name in names:
            encoder = f"get_{name}_features"
            setattr(inner, encoder, giving(name, getattr(inner, encoder)))
        told = {} if self.twin.config.is_encoder_decoder else {"position_ids": positions}
        try:
            yield {**inputs, "attention_mask": alive, **told}
        finally:
            for name in names:
                delattr(inner, f"get_{name}_features")

    def logits(self, inputs):
        """Logits of the pruned model, and what they are to be where there are tokens."""
        with torch.no_grad(), self.masked(inputs) as reference:
            expected = self.twin(**reference).logits
        with torch.no_grad():
            found = self.model(**inputs).logits
        if self.twin.config.is_encoder_decoder:
            return found, expected
        there = inputs["attention_mask"] != 0
        return found[there], expected_rows(expected, reference["attention_mask"])[there]

    def generated(self, inputs, **arguments):
        """New tokens of the pruned model, and what they are to be."""
        arguments = {**self.words, "max_new_tokens": 5, **arguments}
        with self.masked(inputs, decode=True) as reference:
            expected = self.twin.generate(**reference, **arguments)
        found = self.model.generate(**inputs, **arguments)
        n = 0 if self.twin.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        prompts = inputs["input_ids"].repeat_interleave(len(found) // len(inputs["input_ids"]), 0)
        assert torch.equal(found[:, :n], prompts[:, :n])
        return found[:, n:], expected[:, n:]


def inner_of(model):
    inner = getattr(model, "model", None)
    return inner if hasattr(inner, "get_image_features") else model


def repeated(output, counts, times):
    """What an encoder returned, the rows of each prompt so many times in turn."""
    if isinstance(output, torch.Tensor):
        rows = output.flatten(0, -2).split(counts)
        rows = torch.cat([part for part in rows for _ in range(times)])
        return rows.view(*[1] * (output.dim() - 2), *rows.shape)
    if isinstance(output, ModelOutput):
        output.pooler_output = repeated(output.pooler_output, counts, times)
        return output
    return type(output)([repeated(torch.cat([x.flatten(0, -2) for x in output]), counts, times)])


def loud(output, kept):
    """What an encoder returned, with a loud number in the rows that are not kept, bool [T]."""
    if isinstance(output, torch.Tensor):
        rows = output.flatten(0, -2)
        return torch.where(kept[:, None], rows, NEVER_SEEN).view_as(output)
    if isinstance(output, ModelOutput):
        output.pooler_output = loud(output.pooler_output, kept)
        return output
    parts = kept.split([x.flatten(0, -2).shape[0] for x in output])
    return type(output)([loud(x, part) for x, part in zip(output, parts, strict=True)])
