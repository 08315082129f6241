"""`generate` of a language-model family on a short prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..names import parameters, with_cache_named, with_pixels_named
from .callbacks import FullIds, setting, shorten, speak_full, with_full_sequences
from .condense import remembered
from .forward import Call, ShortPrompts
from .reader import of_ints
from .refusals import refuse_assistants, refuse_assisting, refuse_blocks, refuse_prompt_learning

DEFAULT_NEW_TOKENS = 20  # what `generate` adds where nobody says how many


class Generates(ShortPrompts):
    """The half of a language-model family's adapter that serves `generate`."""

    @torch.no_grad()
    def generate(self, original: Callable, kwargs: dict):
        """`generate` on the condensed prompt; what goes in and comes out is in full columns."""
        kwargs = with_cache_named(self.cache_name, with_pixels_named(kwargs))
        memory = remembered(kwargs.get(self.cache_name))
        if self.idle() or (memory is None and not self.has_media(kwargs)):
            with self.a_call(Call()):
                return original(**kwargs)
        self.refuse_generation(kwargs)
        self.refuse(kwargs)
        kwargs, texts = with_text(kwargs)
        given = self.columns(kwargs)
        n = given[texts[0]].shape[1]
        mask = self.generation_mask(given[texts[0]], kwargs)
        past = self.cached(kwargs)
        length = past + (memory.dropped if memory else 0)  # full columns in the cache
        old = max(0, length + n - mask.shape[1])  # the ids may repeat them or not
        new = {name: x[:, old:] for name, x in given.items()}
        self.check_length(length + n - old + self.new_tokens(kwargs, n))
        reading = self.read({**kwargs, **new, "attention_mask": mask}, memory, generating=True)
        if memory is not None:
            memory = memory.rows(len(mask)).upto(past)
        short = self.short(kwargs, given, reading, old, memory)
        short["position_ids"] = self.carried_positions(reading.memory) - self.first_position
        full = None
        if "input_ids" in given:
            full = FullIds(given["input_ids"], short["input_ids"].shape[1], mask)
            short = speak_full(short, full)
        dropped = n - short[texts[0]].shape[1]
        short = shorten(short, self.model.generation_config, dropped)
        pending = None if "inputs_embeds" in given and not reading.deep else reading
        call = Call(True, pending, self.carried_shift(reading.shift), full, memory=reading.memory)
        with self.a_call(call):
            output = original(**short)
        if pending is not None and not call.fed:
            raise RuntimeError(
                "generate of this Transformers did not read the image features of the pruned prompt; call "
                "remove_vtp(model), or use a release that hf_vtp was tested with"
            )
        if full is not None and not call.merged:
            raise RuntimeError(
                "generate of this Transformers did not gather its logits processors the way hf_vtp knows; "
                "call remove_vtp(model), or use a release that hf_vtp was tested with"
            )
        return output if full is None else with_full_sequences(output, full)

    @contextmanager
    def a_call(self, call: Call) -> Iterator[None]:
        """The state of a `generate`, within which another may begin."""
        outer, self.calls.now = self.calls.now, call
        try:
            yield
        finally:
            self.calls.now = outer

    def refuse_generation(self, kwargs: dict) -> None:
        """Raise NotImplementedError for what `generate` of a pruned model cannot do, before any compute."""
        refuse_assisting(kwargs)
        refuse_assistants(self.model, kwargs)
        refuse_prompt_learning(self.model)
        encodes = "mm_encoder_outputs" in parameters(type(self.inner).forward)
        if self.has_media(kwargs) and not encodes:  # else the forward sees no pixels, and goes by no types
            refuse_blocks(kwargs, self.cached(kwargs))

    def new_tokens(self, kwargs: dict, n: int) -> int:
        """The most tokens that `generate` can add to a prompt of `n` columns."""
        new = setting(self.model, kwargs, "max_new_tokens")
        longest = setting(self.model, kwargs, "max_length") or 0
        return max(DEFAULT_NEW_TOKENS, longest - n) if new is None else new

    def generation_mask(self, text: Tensor, kwargs: dict) -> Tensor:
        """The mask that `generate` works with: the caller's, or the one it would make itself."""
        if kwargs.get("attention_mask") is not None:
            return of_ints(kwargs["attention_mask"])
        ids = kwargs.get("input_ids")
        config = kwargs.get("generation_config") or self.model.generation_config
        pad, eos = (kwargs.get(name, getattr(config, name)) for name in ("pad_token_id", "eos_token_id"))
        if ids is None or pad is None or pad in (eos if isinstance(eos, list | tuple) else [eos]):
            return torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
        return (ids != pad).long()


def with_text(kwargs: dict) -> tuple[dict, list[str]]:
    """`generate`'s keyword arguments with its `inputs` by their name, and the names of those with text.

    Raises ValueError where none is.
    """
    kwargs = dict(kwargs)
    inputs = kwargs.pop("inputs", None)
    if inputs is not None:
        kwargs["input_ids"] = inputs
    texts = [name for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None]
    if not texts:
        raise ValueError("generate needs input_ids or inputs_embeds beside its images")
    return kwargs, texts
