"""What every language-model family shares: condense the prompt before the language model, widen after it."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..config import VTPConfig
from ..generation import FullIds, Generate, shorten, speak_full, with_full_sequences
from ..names import cache_name, media_fields, with_cache_named
from ..sequence import MEMORY, Condensed, Memory, remembered, spread
from .base import Adapter
from .prompts import PromptReader, Reading, check_columns, put


class VLMAdapter(PromptReader, Adapter):
    """A vision tower in front of a language model.

    `inner` is the module that puts image features into the prompt. Its hooks condense the prompt and widen
    the last hidden state, so that logits, `logits_to_keep` and the loss around it are Transformers' own, over
    full columns. In `generate` the prompt is condensed before anything else happens, and a decode step passes
    the hooks by one early return.
    """

    def __init__(self, model: nn.Module, config: VTPConfig):
        self.inner = model.model if hasattr(model, "lm_head") else model
        self.cache_name = cache_name(self.inner)
        self.generating = False
        self.pending: Reading | None = None  # what `generate` has still to read
        self.shift: Tensor | None = None
        self.call: Reading | None = None  # of a forward between its two hooks
        super().__init__(model, config)

    def attach(self) -> None:
        super().attach()
        self.tower.handles += [
            self.inner.register_forward_pre_hook(self._before, with_kwargs=True),
            self.inner.register_forward_hook(self._after),
        ]
        if hasattr(type(self.model), "generate"):
            self.model.generate = Generate(self)

    def detach(self) -> None:
        super().detach()
        vars(self.model).pop("generate", None)
        self.generating, self.pending, self.shift, self.call = False, None, None, None

    def idle(self) -> bool:
        """Whether no stage can drop anything: then every call is Transformers' own."""
        return all(ratio == 1 for ratio in self.tower.stages.values()) and self.config.max_keep is None

    # forward

    def _before(self, module: nn.Module, args: tuple, kwargs: dict):
        if self.generating and self.pending is None and self.shift is None:
            return None  # a decode step
        if self.generating:
            return args, self._feed(kwargs)
        self.call = None
        arguments = named(module, args, kwargs) if args else kwargs
        arguments = with_cache_named(self.cache_name, arguments)
        memory = remembered(arguments.get(self.cache_name))
        if self.idle() or (memory is None and not self.has_media(arguments)):
            return None
        self.refuse(arguments)
        if memory is not None and not self.has_media(arguments):
            return (), self._go_on(arguments, memory)
        reading = self.call = self.read(arguments, memory)
        ids, prompt = arguments.get("input_ids"), reading.prompt
        embeds = prompt.take(arguments["inputs_embeds"]) if ids is None else self.embed(prompt.take(ids))
        told = {k: v for k, v in arguments.items() if k not in self.media_names(arguments)}
        return (), {
            **told,
            "input_ids": None,
            "inputs_embeds": put(embeds, reading.rows, reading.features),
            # always explicit: without a mask, gaps in the positions would be read as packed sequences
            "attention_mask": reading.memory.mask,
            "position_ids": prompt.position_ids,
            **self.columns(arguments, prompt),
        }

    def _go_on(self, arguments: dict, memory: Memory) -> dict:
        """Text behind a condensed prompt (a decode loop by hand): its mask and positions, translated."""
        text = arguments["inputs_embeds"] if arguments.get("input_ids") is None else arguments["input_ids"]
        batch, n = text.shape[:2]
        memory = memory.rows(batch)
        since = self.cached(arguments) - memory.mask.shape[1]
        mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
        check_columns(mask, memory.length + since + n)
        rest = (
            memory.mask.new_ones(batch, since + n)
            if mask is None
            else mask[:, memory.length :].to(memory.mask.dtype)
        )
        if positions is None:
            positions = memory.next_position + torch.arange(since, since + n, device=memory.mask.device)
        return {
            **arguments,
            "attention_mask": torch.cat([memory.mask, rest], dim=-1),
            "position_ids": positions,
        }

    def _after(self, module: nn.Module, args: tuple, output):
        call, self.call = self.call, None
        if call is None:
            return None
        for value in output if isinstance(output, tuple) else output.values():
            if isinstance(value, Cache):
                setattr(value, MEMORY, call.memory)
        if isinstance(output, tuple):
            return (call.prompt.widen(output[0]), *output[1:])
        output.last_hidden_state = call.prompt.widen(output.last_hidden_state)
        for name, value in media_fields(output, call.media).items():
            setattr(output, name, value)
        return output

    # generate

    @torch.no_grad()
    def generate(self, original: Callable, inputs: Tensor | None, *args, **kwargs):
        """`generate` on the condensed prompt; what goes in and comes out is in full columns."""
        kwargs = with_cache_named(self.cache_name, kwargs)
        memory = remembered(kwargs.get(self.cache_name))
        if self.generating or self.idle() or (memory is None and not self.has_media(kwargs)):
            return original(inputs, *args, **kwargs)
        self.refuse(kwargs)
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
            full = FullIds(given["input_ids"], told["input_ids"].shape[1])
            told = speak_full(told, full)
        told = shorten(told, self.model.generation_config, n - told[next(iter(given))].shape[1])
        self.generating, self.shift = True, self.generation_shift(reading.shift)
        self.pending = None if "inputs_embeds" in given else reading
        try:
            output = original(None, *args, **told)
        finally:
            self.generating, self.pending, self.shift = False, None, None
        return output if full is None else with_full_sequences(output, full)

    def _feed(self, kwargs: dict) -> dict:
        """Put the pending features into the columns of the prompt that this forward of `generate` reads."""
        kwargs, pending = dict(kwargs), self.pending
        offset, m = (pending.offset, pending.rows.shape[1]) if pending else (0, 0)
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        n = (embeds if ids is None else ids).shape[1]
        if self.shift is not None:
            behind = torch.arange(offset, offset + n, device=self.shift.device) >= m
            positions = kwargs["position_ids"]
            shift = spread(self.shift, positions.shape[-2], dim=-2) * behind
            kwargs["position_ids"] = positions + shift.to(positions.device)
        if pending is None:
            return kwargs
        rows = spread(pending.rows, len(ids), dim=0)[:, offset : offset + n]
        rows = torch.nn.functional.pad(rows, (0, n - rows.shape[1]), value=-1)  # candidates behind the prompt
        if (
            kwargs.get("attention_mask") is None
        ):  # explicit: gaps in the positions would be read as packed sequences
            kwargs["attention_mask"] = torch.ones(
                len(ids), self.cached(kwargs) + n, dtype=torch.long, device=ids.device
            )
        kwargs |= {"input_ids": None, "inputs_embeds": put(self.embed(ids), rows, pending.features)}
        if kwargs.get(self.cache_name) is not None:
            setattr(kwargs[self.cache_name], MEMORY, pending.memory)
            pending.offset += n
            if pending.offset >= m:
                self.pending = None
        return kwargs

    def generation_mask(self, given: dict, kwargs: dict) -> Tensor:
        """The mask that `generate` works with: the caller's, or the one it would make itself."""
        if kwargs.get("attention_mask") is not None:
            return kwargs["attention_mask"]
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


def named(module: nn.Module, args: tuple, kwargs: dict) -> dict:
    """A forward's positional arguments by name, with its keyword arguments."""
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}
