"""`generate` of a language-model family on a condensed prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..names import with_cache_named
from ..per_thread import PerThread
from .callbacks import FullIds, setting, shorten, speak_full, with_full_sequences
from .condense import MEMORY, Condensed, Memory, remembered, spread
from .reader import PromptReader, Reading, of_ints, put
from .refusals import refuse_assistants, refuse_assisting, refuse_prompt_learning

DEFAULT_NEW_TOKENS = 20  # what `generate` adds where nobody says how many


@dataclass
class Call:
    """A forward or a `generate` in progress."""

    generating: bool = False
    pending: Reading | None = None  # what `generate` has still to read
    shift: Tensor | None = None  # of the positions behind the prompt
    full: FullIds | None = None  # what the caller's callbacks are shown
    reading: Reading | None = None  # of a forward between its two hooks
    fed: bool = False  # whether `generate` has read features
    merged: bool = False  # whether it took the caller's callbacks


class Generates(PromptReader):
    """The half of a language-model adapter that serves `generate`."""

    calls: PerThread  # of Call

    @property
    def call(self) -> Call:
        """This thread's."""
        return self.calls.now

    def idle(self) -> bool:
        """Whether no stage can drop anything: then every call is Transformers' own."""
        return all(ratio == 1 for ratio in self.tower.stages.values()) and self.config.max_keep is None

    @torch.no_grad()
    def generate(self, original: Callable, kwargs: dict):
        """`generate` on the condensed prompt; what goes in and comes out is in full columns."""
        kwargs = with_cache_named(self.cache_name, kwargs)
        memory = remembered(kwargs.get(self.cache_name))
        if self.idle() or (memory is None and not self.has_media(kwargs)):
            with self.a_call(Call()):
                return original(**kwargs)
        self.refuse_generation(kwargs)
        self.refuse(kwargs)
        inputs = kwargs.pop("inputs", None)
        given = {"input_ids": inputs if inputs is not None else kwargs.get("input_ids")}
        given["inputs_embeds"] = kwargs.get("inputs_embeds")
        given = {name: x for name, x in given.items() if x is not None}
        if not given:
            raise ValueError("generate needs input_ids or inputs_embeds beside its images")
        n = next(iter(given.values())).shape[1]
        mask = self.generation_mask(given, kwargs)
        past = self.cached(kwargs)
        whole = past + (
            memory.dropped if memory else 0
        )  # full columns in the cache; the ids may repeat them or not
        old = max(0, whole + n - mask.shape[1])
        new = {name: x[:, old:] for name, x in given.items()}
        self.check_length(whole + n - old + self.new_tokens(kwargs, n))
        reading = self.read({**kwargs, **new, "attention_mask": mask}, memory, generating=True)
        told = {k: v for k, v in kwargs.items() if k not in self.media_names(kwargs)}
        for name, x in given.items():
            head = (
                x[:, :old]
                if memory is None
                else memory.rows(len(x)).upto(past).take(x[:, :old])
                if old
                else x[:, :0]
            )
            tail = reading.prompt.take(x[:, old:])
            if name == "inputs_embeds":
                tail = put(tail, reading.rows, reading.features)
            told[name] = torch.cat([head, tail], dim=1)
        told["attention_mask"], told["position_ids"] = (
            reading.memory.mask,
            self.generation_positions(reading.memory),
        )
        told |= self.columns(kwargs, reading.memory)
        full = None
        if "input_ids" in given:
            full = FullIds(given["input_ids"], told["input_ids"].shape[1], mask)
            told = speak_full(told, full)
        dropped = n - told[next(iter(given))].shape[1]
        told = shorten(told, self.model.generation_config, dropped)
        pending = None if "inputs_embeds" in given else reading
        call = Call(True, pending, self.generation_shift(reading.shift), full)
        with self.a_call(call):
            output = original(**told)
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

    def _feed(self, call: Call, kwargs: dict) -> dict:
        """Put the pending features into the columns of the prompt that this forward of `generate` reads."""
        kwargs, pending = dict(kwargs), call.pending
        offset, m = (pending.offset, pending.rows.shape[1]) if pending else (0, 0)
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        batch, n = (embeds if ids is None else ids).shape[:2]
        if offset + n <= m:  # not every release cuts those of a prompt that is read in chunks right
            first = pending.memory.mask.shape[1] - m + offset
            positions = self.generation_positions(pending.memory)[..., first : first + n]
            kwargs["position_ids"] = spread(positions, batch, dim=-2)
        elif call.shift is not None:
            behind = torch.arange(offset, offset + n, device=call.shift.device) >= m
            positions = kwargs["position_ids"]
            shift = spread(call.shift, positions.shape[-2], dim=-2) * behind
            kwargs["position_ids"] = positions + shift.to(positions.device)
        if pending is None:
            return kwargs
        call.fed = True
        rows = spread(pending.rows, batch, dim=0)[:, offset : offset + n]
        rows = torch.nn.functional.pad(rows, (0, n - rows.shape[1]), value=-1)  # candidates behind the prompt
        if kwargs.get("attention_mask") is None:  # explicit: gaps in positions would be read as packed
            shape = batch, self.cached(kwargs) + n
            kwargs["attention_mask"] = torch.ones(shape, dtype=torch.long, device=ids.device)
        kwargs |= {"input_ids": None, "inputs_embeds": put(self.embed(ids), rows, pending.features)}
        if kwargs.get(self.cache_name) is not None:
            setattr(kwargs[self.cache_name], MEMORY, pending.memory)
            pending.offset += n
            if pending.offset >= m:
                call.pending = None
        return kwargs

    def new_tokens(self, kwargs: dict, n: int) -> int:
        """The most tokens that `generate` can add to a prompt of `n` columns."""
        new = setting(self.model, kwargs, "max_new_tokens")
        longest = setting(self.model, kwargs, "max_length") or 0
        return max(DEFAULT_NEW_TOKENS, longest - n) if new is None else new

    def generation_mask(self, given: dict, kwargs: dict) -> Tensor:
        """The mask that `generate` works with: the caller's, or the one it would make itself."""
        if kwargs.get("attention_mask") is not None:
            return of_ints(kwargs["attention_mask"])
        text, ids = next(iter(given.values())), given.get("input_ids")
        config = kwargs.get("generation_config") or self.model.generation_config
        pad, eos = (kwargs.get(name, getattr(config, name)) for name in ("pad_token_id", "eos_token_id"))
        if ids is None or pad is None or pad in (eos if isinstance(eos, list | tuple) else [eos]):
            return torch.ones(text.shape[:2], dtype=torch.long, device=text.device)
        return (ids != pad).long()

    def generation_positions(self, memory: Memory) -> Tensor:
        """Positions of all condensed columns in the form in which `generate` carries them."""
        return memory.position_ids

    def generation_shift(self, shift: Tensor | None) -> Tensor | None:
        """A shift of positions in that form."""
        return shift

    def columns(self, arguments: dict, prompt: Condensed | Memory) -> dict:
        """Further arguments with one entry per column, condensed."""
        return {}
