"""An oracle over any vision-language family: the full prompt with the kept features in place.

It shares no code with hf_vtp's way to a shorter prompt. An unpruned twin reads all columns; those of dropped
placeholders hold a number that would be loud and are masked as keys; positions are those that the unpruned
model itself gives. `Pair` has the pruned model and its twin, `Prompt` is what the twin reads.
"""

import functools
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from families import classes, made
from vlm import cache_of, cached, expected_rows

from hf_vtp import VTPConfig, apply_vtp, vtp_stats
from hf_vtp.families.placeholder import LANGUAGE
from hf_vtp.towers.rows import find
from hf_vtp.verifying.batch import row_alone
from hf_vtp.verifying.case import Case

NEVER_SEEN = 7.0
WORDS = dict(do_sample=False, pad_token_id=0)


@dataclass
class Prompt:
    """What the twin reads: B rows of n columns."""

    ids: torch.Tensor  # [B, n]
    embeds: torch.Tensor  # [B, n, D]
    mask: torch.Tensor  # [B, n]
    positions: torch.Tensor  # [..., B, n] as a forward takes them
    columns: dict[str, torch.Tensor]  # whatever else has an entry a column, token types say

    def then(self, twin, ids, **columns):
        """The same with more text [B, t] after it; its token types are 1 where a family has such."""
        t = ids.shape[1]
        more = self.positions[..., -1:] + torch.arange(1, t + 1)
        ones = {name: torch.ones_like(ids) for name in self.columns} | columns
        return replace(
            self,
            ids=torch.cat([self.ids, ids], dim=1),
            embeds=torch.cat([self.embeds, inner_of(twin).get_input_embeddings()(ids)], dim=1),
            mask=torch.cat([self.mask, torch.ones_like(ids)], dim=1),
            positions=torch.cat([self.positions, more], dim=-1),
            columns={name: torch.cat([x, ones[name]], dim=1) for name, x in self.columns.items()},
        )


class Pair:
    """A pruned tiny model of a family, an unpruned twin with the same weights, and a batch for them.

    `how` are apply_vtp's keyword arguments, of a method that drops; `changes` go into the config of full size
    that the tiny model is made from.
    """

    def __init__(self, model_type, how, **changes):
        self.model_type, self.how = model_type, how
        (name,) = classes(model_type)
        self.model, self.inputs = made(model_type, name, **changes)
        self.twin, _ = made(model_type, name, **changes)
        apply_vtp(self.model, **how)

    @property
    def media(self):
        """Ids of placeholders by "image" and "video"."""
        config = self.twin.config
        found = {}
        for medium in ("image", "video"):
            names = (f"{medium}_token_id", f"{medium}_token_index")
            token = next((x for name in names if (x := getattr(config, name, None)) is not None), None)
            if token is not None and hasattr(inner_of(self.twin), f"get_{medium}_features"):
                found[medium] = token
        return found

    @property
    def words(self):
        """Arguments of a plain `generate` that writes no placeholder."""
        vocabulary = self.twin.config.get_text_config().vocab_size
        return {**WORDS, "suppress_tokens": [i for i in self.media.values() if i < vocabulary]}

    def columns(self, inputs):
        """Arguments with an entry a column beside ids and mask, but for m-RoPE's, which positions replace."""
        shape, others = inputs["input_ids"].shape, ("input_ids", "attention_mask", "mm_token_type_ids")
        return {k: x for k, x in inputs.items() if k not in others and x.dim() > 1 and x.shape[:2] == shape}

    def with_text_row(self, inputs):
        """The batch with one more row that holds no image."""
        ids, n = inputs["input_ids"], inputs["input_ids"].shape[1]
        row = torch.tensor([[0] * (n - 6) + [11, 12, 13, 14, 15, 16]])
        more = {k: torch.cat([x, torch.zeros_like(x[:1])]) for k, x in self.columns(inputs).items()}
        if "mm_token_type_ids" in inputs:
            more["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 0, 0, 1))
        mask = torch.cat([inputs["attention_mask"], (row != 0).long()])
        return {**inputs, **more, "input_ids": torch.cat([ids, row]), "attention_mask": mask}

    def row(self, inputs, r):
        """The inputs of one row alone, without its padding."""
        return row_alone(Case(self.twin, inputs, VTPConfig(**self.how)), r)

    def prompt(self, inputs, generating=False):
        """The Prompt for a batch with images; runs the pruned model once to have its features."""
        features = self.features(inputs)
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        alive = (torch.ones_like(ids) if mask is None else mask).clone()
        tokens = torch.tensor(list(self.media.values()))
        embeds = (
            inner_of(self.twin).get_input_embeddings()(ids.masked_fill(torch.isin(ids, tokens), 0)).clone()
        )
        for medium, (rows, kept) in features.items():
            where = torch.nonzero(ids == self.media[medium])
            assert len(where) == len(rows) == len(kept)
            embeds[where[:, 0], where[:, 1]] = torch.where(kept[:, None], rows, NEVER_SEEN)
            alive[where[~kept][:, 0], where[~kept][:, 1]] = 0
        assert (alive != 0).sum() < (alive.numel() if mask is None else mask.sum()), "nothing was dropped"
        positions = self.positions(inputs, generating)
        if self.how.get("positions") == "compact":
            positions = ((alive.cumsum(-1) - 1).clamp(min=0) + positions.amin()).expand_as(positions)
        return Prompt(ids, embeds.detach(), alive, positions, self.columns(inputs))

    def features(self, inputs):
        """By medium, the rows [T, D] of all placeholders and which of them the pruned model kept, [T]."""
        inner, found = inner_of(self.model), {}
        with recorded(inner) as calls, torch.no_grad():
            self.model(**inputs)
        stats = iter(
            zip(*(getattr(vtp_stats(self.model), k) for k in ("num_tokens", "keep_indices")), strict=True)
        )
        for medium, images in calls:
            rows = torch.cat(images)
            kept = ~rows.isnan().any(dim=-1)
            if kept.all():  # no marks: a family that is pruned after its features
                flags = []
                for image in images:
                    count, keep = next(stats)
                    assert count == len(image)
                    flags.append(torch.zeros(count, dtype=torch.bool).index_fill(0, keep, True))
                kept = torch.cat(flags)
            found[medium] = rows, kept
        return found

    def positions(self, inputs, generating):
        """The positions that the unpruned model's forward, or its `generate`, gives to the full prompt."""
        seen = []
        module = self.twin if generating else find(inner_of(self.twin), LANGUAGE)
        handle = module.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs.get("position_ids")), with_kwargs=True
        )
        with torch.no_grad():
            try:
                if generating:
                    self.twin.generate(**inputs, **self.words, max_new_tokens=1)
                else:
                    self.twin(**inputs)
            finally:
                handle.remove()
        shape = inputs["input_ids"].shape
        positions = torch.arange(shape[1])[None] if seen[0] is None else seen[0]
        return positions.expand(*positions.shape[:-2], *shape)

    @torch.no_grad()
    def expected_logits(self, prompt):
        """Logits [B, n, V] as the caller of the pruned model sees them."""
        told = dict(inputs_embeds=prompt.embeds, attention_mask=prompt.mask, position_ids=prompt.positions)
        return expected_rows(self.twin(**told, **prompt.columns).logits, prompt.mask)

    def expected_words(self, prompt, **arguments):
        """Sequences that the twin's `generate` makes of a prompt, new tokens only."""
        n = prompt.ids.shape[1]

        def put(module, args, kwargs):
            ids = kwargs.get("input_ids")
            if ids is None or ids.shape[1] < n:
                return None
            assert ids.shape[1] == n
            more = len(ids) // len(prompt.embeds)
            embeds = prompt.embeds.repeat_interleave(more, dim=0)
            return args, {**kwargs, "input_ids": None, "inputs_embeds": embeds}

        inner = inner_of(self.twin)
        handles = [
            inner.register_forward_pre_hook(by_keyword, with_kwargs=True),
            inner.register_forward_pre_hook(put, with_kwargs=True),
        ]
        try:
            sequences = self.twin.generate(
                input_ids=prompt.ids,
                attention_mask=prompt.mask,
                position_ids=prompt.positions - prompt.positions.amin(),  # PaliGemma adds 1 by itself
                **prompt.columns,
                **{**self.words, **arguments},
            )
        finally:
            for handle in handles:
                handle.remove()
        return sequences[:, n:]

    def found_words(self, inputs, **arguments):
        """New tokens of the pruned model; what it returns begins with the whole prompt."""
        sequences = self.model.generate(**inputs, **{**self.words, **arguments})
        ids = inputs["input_ids"]
        assert torch.equal(sequences[:, : ids.shape[1]], ids.repeat_interleave(len(sequences) // len(ids), 0))
        return sequences[:, ids.shape[1] :]

    def second_turn(self, inputs, text, new=3, **arguments):
        """New tokens of both models after a first turn of `new` tokens and more text [B, t]."""
        first = self.model.generate(
            **inputs, **self.words, max_new_tokens=new, return_dict_in_generate=True, use_cache=True
        )
        answer = first.sequences[:, inputs["input_ids"].shape[1] :]
        assert cache_of(first) is not None
        more = torch.cat([answer, text], dim=1)
        mask = torch.cat([inputs["attention_mask"], torch.ones_like(more)], dim=1)
        sequences = self.model.generate(
            input_ids=torch.cat([inputs["input_ids"], more], dim=1),
            attention_mask=mask,
            **cached(first),
            **{**self.words, **arguments},
        )
        prompt = self.prompt(inputs, generating=True).then(self.twin, more)
        return sequences[:, mask.shape[1] :], self.expected_words(prompt, **arguments)


def inner_of(model):
    """The module that puts features into the prompt."""
    inner = getattr(model, "model", None)
    return inner if hasattr(inner, "get_image_features") else model


def by_keyword(module, args, kwargs):
    """The ids of a call by keyword (LLaVA-NeXT's language head passes them by position)."""
    return ((), {"input_ids": args[0], **kwargs}) if args else None


@contextmanager
def recorded(inner):
    """What a module's encoders return inside a `with` block: ("image" or "video", rows of each image)."""
    calls, running = [], []

    def recorder(medium, original):
        @functools.wraps(original)
        def call(*args, **kwargs):
            running.append(medium)
            output = original(*args, **kwargs)
            running.pop()
            if running:  # videos may go through the encoder of images
                return output
            features = output.pooler_output
            if isinstance(features, torch.Tensor):
                features = [features] if features.dim() == 2 else features.flatten(1, -2)
            calls.append((medium, [rows.flatten(0, -2) for rows in features]))
            return output

        return call

    names = {medium: f"get_{medium}_features" for medium in ("image", "video")}
    names = {medium: name for medium, name in names.items() if hasattr(inner, name)}
    for medium, name in names.items():
        setattr(inner, name, recorder(medium, getattr(inner, name)))
    try:
        yield calls
    finally:
        for name in names.values():
            delattr(inner, name)
