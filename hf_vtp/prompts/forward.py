"""`forward` of a language-model family: the prompt gets shorter before it, what comes back is widened."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ..names import media_fields, parameters, with_cache_named, with_pixels_named
from ..per_thread import PerThread
from .callbacks import FullIds
from .condense import MEMORY, Memory, remembered, repeat_rows
from .encoded import Reading
from .reader import PromptReader, check_columns, put
from .refusals import refuse_blocks

DEEP_ARGUMENTS = ("visual_pos_masks", "deepstack_visual_embeds")  # of a language model with DeepStack


@dataclass
class Call:
    """A forward or a `generate` in progress."""

    generating: bool = False
    pending: Reading | None = None  # what `generate` has still to read
    shift: Tensor | None = None  # of the positions after the prompt
    full: FullIds | None = None  # what the caller's callbacks are shown
    reading: Reading | None = None  # of a forward between its two hooks
    memory: Memory | None = None  # of the prompt that `generate` continues
    columns: Memory | None = None  # of the forward in progress, for layers that count or weigh columns
    weighed: bool = False  # whether its language model got the weights of those
    fed: bool = False  # whether `generate` has read features
    merged: bool = False  # whether it took the caller's callbacks
    # of a forward in progress: columns that hold features, bool [B, n], and what DeepStack adds there
    deep: tuple[Tensor, list[Tensor]] | None = None
    places: Tensor | None = None  # [B, m] positions of what an encoder reads in a forward in progress
    # by encoder's name, what the forward in progress is to get of it, and has not asked for yet
    serve: dict[str, list] = field(default_factory=dict)


class ShortPrompts(PromptReader):
    """The half of a language-model family's adapter that shortens prompts.

    `inner` is the module that puts image features into the prompt. Its hooks hand it the short prompt and
    widen the last hidden state, so that logits, `logits_to_keep` and the loss around it are Transformers'
    own, over full columns. `generate` shortens the prompt before anything else happens; its forwards pass the
    same hooks, which put the features in, and a decode step passes them by one early return.
    """

    calls: PerThread  # of Call

    @property
    def call(self) -> Call:
        """This thread's."""
        return self.calls.now

    def idle(self) -> bool:
        """Whether no stage can drop anything: then every call is Transformers' own."""
        return all(ratio == 1 for ratio in self.tower.stages.values()) and self.config.max_keep is None

    def short(
        self, arguments: dict, given: dict[str, Tensor], reading: Reading, old: int, memory: Memory | None
    ) -> dict:
        """A call's arguments for the short prompt, without what speaks of pixels.

        `given` are those with an entry per column [B, n, ...]. Their first `old` columns are in the cache
        already, which remembers them as `memory`.
        """
        short = {k: v for k, v in arguments.items() if k not in self.media_names(arguments)}
        for name, x in given.items():
            head = x[:, :old]
            if old and memory is not None:
                head = memory.take(head)
            tail = reading.prompt.take(x[:, old:])
            if name == "inputs_embeds":
                tail = put(tail, reading.rows, reading.features)
            short[name] = torch.cat([head, tail], dim=1)
        # always explicit: without a mask, gaps in the positions would be read as packed sequences
        short["attention_mask"] = reading.memory.mask
        return short

    def feed(self, kwargs: dict, pending: Reading | None, shift: Tensor | None) -> dict:
        """Put features and positions into the columns of the short prompt that this forward reads."""
        offset, m = (pending.offset, pending.rows.shape[1]) if pending else (0, 0)
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        batch, n = (embeds if ids is None else ids).shape[:2]
        if offset + n <= m:  # not every release cuts those of a prompt that is read in chunks right
            first = pending.memory.mask.shape[1] - m + offset
            positions = self.carried_positions(pending.memory)[..., first : first + n]
            kwargs["position_ids"] = repeat_rows(positions, batch, dim=-2)
        elif shift is not None:
            after = torch.arange(offset, offset + n, device=shift.device) >= m
            positions = kwargs["position_ids"]
            shift = repeat_rows(shift, positions.shape[-2], dim=-2) * after
            kwargs["position_ids"] = positions + shift.to(positions.device)
        if pending is None:
            return kwargs
        rows = repeat_rows(pending.rows, batch, dim=0)[:, offset : offset + n]
        rows = torch.nn.functional.pad(rows, (0, n - rows.shape[1]), value=-1)  # candidates after the prompt
        if pending.deep:
            there = rows >= 0
            self.call.deep = there, [x[rows[there].to(x.device)] for x in pending.deep]
        if ids is None:
            return kwargs
        if kwargs.get("attention_mask") is None:  # explicit: gaps in positions would be read as packed
            shape = batch, self.cached(kwargs) + n
            kwargs["attention_mask"] = torch.ones(shape, dtype=torch.long, device=ids.device)
        return kwargs | self.with_features(ids, rows, pending)

    def ended(self, module: nn.Module) -> None:
        """Called after each forward."""

    def with_features(self, ids: Tensor, rows: Tensor, pending: Reading) -> dict:
        """What a forward is handed so that columns [B, n] with a row of features hold it, -1 for text."""
        return {
            "input_ids": None,
            "inputs_embeds": put(self.embed(ids, rows), rows, pending.features),
            **self.beside_embeds(ids, rows),
        }

    def _before_language(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Hand the language model what DeepStack adds to the columns of this forward."""
        deep, self.call.deep = self.call.deep, None
        if deep is None:
            return None
        return args, {**kwargs, **dict(zip(DEEP_ARGUMENTS, deep, strict=True))}

    def _before(self, module: nn.Module, args: tuple, kwargs: dict):
        call = self.call
        call.deep, call.weighed = None, False  # of a forward that came to no end
        if call.generating:
            # a decode step; or a text-only forward of the loop's own, as for guidance: only what continues
            # the prompt carries the positions that `generate` was given
            continues = kwargs.get("position_ids") is not None
            call.columns = call.memory if continues else None
            if (call.pending is None and call.shift is None) or not continues:
                return None
            return (), self._feed_chunk(call, named(module, args, kwargs))
        call.reading = call.columns = None
        call.serve = {}  # of a forward that came to no end
        arguments = named(module, args, kwargs) if args else kwargs
        arguments = with_cache_named(self.cache_name, with_pixels_named(arguments))
        memory = remembered(arguments.get(self.cache_name))
        if self.idle() or (memory is None and not self.has_media(arguments)):
            return None
        self.refuse(arguments)
        if memory is not None and not self.has_media(arguments):
            call.columns = memory
            return (), self._go_on(arguments, memory)
        refuse_blocks(arguments, self.cached(arguments))
        reading = call.reading = self.read(arguments, memory)
        call.columns = reading.memory
        short = self.short(arguments, self.columns(arguments), reading, 0, None)
        m = reading.rows.shape[1]
        short["position_ids"] = self.carried_positions(reading.memory)[..., -m:]
        return (), self.feed(short, reading, None)

    def _feed_chunk(self, call: Call, kwargs: dict) -> dict:
        """`feed` in a forward of `generate`, which may read the prompt in chunks."""
        pending = call.pending
        n = next(kwargs[k].shape[1] for k in ("input_ids", "inputs_embeds") if kwargs.get(k) is not None)
        kwargs = self.feed(kwargs, pending, call.shift)
        if pending is None:
            return kwargs
        call.fed = True
        if kwargs.get(self.cache_name) is not None:
            setattr(kwargs[self.cache_name], MEMORY, pending.memory)
            pending.offset += n
            if pending.offset >= pending.rows.shape[1]:
                call.pending = None
        return kwargs

    def _go_on(self, arguments: dict, memory: Memory) -> dict:
        """Text after a condensed prompt (a decode loop by hand): its mask and positions, translated."""
        text = arguments["inputs_embeds"] if arguments.get("input_ids") is None else arguments["input_ids"]
        batch, n = text.shape[:2]
        memory = memory.rows(batch)
        since = self.cached(arguments) - memory.mask.shape[1]
        mask, positions = arguments.get("attention_mask"), arguments.get("position_ids")
        check_columns(mask, memory.length + since + n)
        self.check_length(memory.length + since + n)
        if mask is None:
            rest = memory.mask.new_ones(batch, since + n)
        else:
            rest = (mask[:, memory.length :] != 0).to(memory.mask.dtype)
        if positions is None:
            positions = memory.next_position + torch.arange(since, since + n, device=memory.mask.device)
        return {
            **arguments,
            "attention_mask": torch.cat([memory.mask, rest], dim=-1),
            "position_ids": positions,
        }

    def _after(self, module: nn.Module, args: tuple, output):
        self.weights.ended()
        reading, self.call.reading, self.call.columns = self.call.reading, None, None
        self.ended(module)
        if reading is None:
            return None
        for value in output if isinstance(output, tuple) else output.values():
            if isinstance(value, Cache):
                setattr(value, MEMORY, reading.memory)
        if isinstance(output, tuple):
            return (reading.prompt.widen(output[0]), *output[1:])
        name = states_name(output)
        setattr(output, name, reading.prompt.widen(getattr(output, name)))
        for name, value in media_fields(output, reading.media).items():
            setattr(output, name, value)
        return output


def states_name(output: object) -> str:
    """The field of a model's output with an entry a column: a model without a head, or one that is all."""
    return "last_hidden_state" if hasattr(output, "last_hidden_state") else "logits"


def named(module: nn.Module, args: tuple, kwargs: dict) -> dict:
    """A forward's positional arguments by name, with its keyword arguments."""
    names = parameters(type(module).forward)[1:]
    return {**dict(zip(names, args, strict=False)), **kwargs}
