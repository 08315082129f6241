"""What every language-model family shares: condense the prompt before the language model, widen after it."""

from __future__ import annotations

import torch
from torch import nn
from transformers.cache_utils import Cache

from ..config import VTPConfig
from ..families.base import Adapter
from ..names import cache_name, media_fields, parameters, with_cache_named
from ..per_thread import PerThread
from .callbacks import MERGE, Generate, MergeLists
from .condense import MEMORY, Memory, remembered
from .generate import Call, Generates
from .reader import check_columns, put


class VLMAdapter(Generates, Adapter):
    """A vision tower in front of a language model.

    `inner` is the module that puts image features into the prompt. Its hooks condense the prompt and widen
    the last hidden state, so that logits, `logits_to_keep` and the loss around it are Transformers' own, over
    full columns. In `generate` the prompt is condensed before anything else happens, and a decode step passes
    the hooks by one early return.
    """

    def __init__(self, model: nn.Module, config: VTPConfig):
        self.inner = model.model if hasattr(model, "lm_head") else model
        self.cache_name = cache_name(self.inner)
        self.calls = PerThread(Call)
        super().__init__(model, config)

    def attach(self) -> None:
        super().attach()
        self.tower.handles += [
            self.inner.register_forward_pre_hook(self._before, with_kwargs=True),
            self.inner.register_forward_hook(self._after),
        ]
        if hasattr(type(self.model), "generate"):
            self.model.generate = Generate(self)
            setattr(self.model, MERGE, MergeLists(self))

    def detach(self) -> None:
        super().detach()
        for name in ("generate", MERGE):
            vars(self.model).pop(name, None)
        self.calls = PerThread(Call)

    def _before(self, module: nn.Module, args: tuple, kwargs: dict):
        call = self.call
        if call.generating:
            # a decode step; or a text-only forward of the loop's own, as for guidance: only what continues
            # the prompt carries the positions that `generate` was given
            if (call.pending is None and call.shift is None) or kwargs.get("position_ids") is None:
                return None
            return args, self._feed(call, kwargs)
        call.reading = None
        arguments = named(module, args, kwargs) if args else kwargs
        arguments = with_cache_named(self.cache_name, arguments)
        memory = remembered(arguments.get(self.cache_name))
        if self.idle() or (memory is None and not self.has_media(arguments)):
            return None
        self.refuse(arguments)
        if memory is not None and not self.has_media(arguments):
            return (), self._go_on(arguments, memory)
        reading = call.reading = self.read(arguments, memory)
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
        self.check_length(memory.length + since + n)
        rest = (
            memory.mask.new_ones(batch, since + n)
            if mask is None
            else (mask[:, memory.length :] != 0).to(memory.mask.dtype)
        )
        if positions is None:
            positions = memory.next_position + torch.arange(since, since + n, device=memory.mask.device)
        return {
            **arguments,
            "attention_mask": torch.cat([memory.mask, rest], dim=-1),
            "position_ids": positions,
        }

    def _after(self, module: nn.Module, args: tuple, output):
        reading, self.call.reading = self.call.reading, None
        if reading is None:
            return None
        for value in output if isinstance(output, tuple) else output.values():
            if isinstance(value, Cache):
                setattr(value, MEMORY, reading.memory)
        if isinstance(output, tuple):
            return (reading.prompt.widen(output[0]), *output[1:])
        output.last_hidden_state = reading.prompt.widen(output.last_hidden_state)
        for name, value in media_fields(output, reading.media).items():
            setattr(output, name, value)
        return output


def named(module: nn.Module, args: tuple, kwargs: dict) -> dict:
    """A forward's positional arguments by name, with its keyword arguments."""
    names = parameters(type(module).forward)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}
