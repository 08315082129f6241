"""The first prompt of a class of models that nobody has tried: shortened against full, before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from .. import canary
from ..names import parameters
from ..prompts.condense import plain_memory
from ..prompts.encoded import Reading
from ..prompts.encoders import in_form
from ..prompts.forward import Call, states_name
from ..prompts.reader import of_ints
from ..prompts.refusals import steps_over_masks

NEVER_SEEN = 7.0  # in rows that are masked: one that is seen is loud


class FirstUse:
    """One prompt of a model, condensed to a Reading.

    What is promised of every family by tests is promised of a class without a row by its first prompt: the
    last hidden states of the shortened prompt are those of the full one whose dropped placeholders are
    masked. That takes two forwards without gradients, once for each class in a process.
    """

    def __init__(self, adapter, arguments: dict, reading: Reading, generating: bool):
        self.adapter, self.reading, self.generating = adapter, reading, generating
        self.arguments = {k: x for k, x in arguments.items() if x is not None}

    def check(self) -> None:
        """Raise RuntimeError if the shortened prompt gives other states than the full one."""
        model = self.adapter.model
        counted = self.decodes and self.adapter.config.positions == "compact"  # the full prompt has none
        counted = counted or steps_over_masks(model.config.get_text_config())
        if torch.compiler.is_compiling() or not canary.first(model) or counted:
            return
        from ..differences import Bounds, precision

        name = type(model).__name__
        try:
            with canary.quiet(), self.at_rest(), torch.no_grad():
                short, full = self.short().float(), self.full().float()
        except Exception as error:  # whatever a class does that others do not
            first = next(iter(str(error).splitlines()), "")
            raise RuntimeError(
                f"{name} cannot be pruned: a shortened prompt ends in {type(error).__name__}, {first}"
            ) from error
        found = float(((short - full).norm(dim=-1) / full.norm(dim=-1).clamp(min=1e-6)).mean())
        bound = Bounds(precision(model)).widest
        if not found <= bound:
            raise RuntimeError(
                f"{name} cannot be pruned: its shortened prompt and the full one with dropped placeholders "
                f"masked differ by {found:.1e} where {bound:.0e} may be, so it reads more of a prompt than "
                "is shortened; call remove_vtp(model)"
            )
        canary.passed(model)

    @property
    def decodes(self) -> bool:
        """Whether the states are a decoder's, and an encoder reads the prompt."""
        return self.adapter.model.config.is_encoder_decoder

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No dropout in a `with` block."""
        training = [module for module in self.adapter.inner.modules() if module.training]
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True

    def short(self) -> Tensor:
        """States [tokens, D] of the shortened prompt."""
        adapter, reading = self.adapter, self.reading
        given = adapter.short(self.arguments, adapter.columns(self.arguments), reading, 0, None)
        m = reading.rows.shape[1]
        given["position_ids"] = adapter.carried_positions(reading.memory)[..., -m:]
        places = reading.memory.position_ids if self.decodes else None
        memory = replace(reading.memory, log_sizes=None)  # the full prompt has none
        with adapter.a_call(Call(True, memory=memory, places=places)):
            if given.get("input_ids") is not None:
                given |= adapter.with_features(given["input_ids"], reading.rows, reading)
            return self.of_tokens(self.run(given))

    def full(self) -> Tensor:
        """The same tokens' states in the full prompt."""
        adapter, prompt = self.adapter, self.reading.prompt
        text = self.arguments.get("input_ids", self.arguments.get("inputs_embeds"))
        mask = self.arguments.get("attention_mask")
        mask = torch.ones(text.shape[:2], dtype=torch.long, device=text.device) if mask is None else mask
        mask = of_ints(mask)
        alive = torch.zeros_like(mask).scatter(1, prompt.index, prompt.mask)
        memory = plain_memory(mask[:, :0], mask.new_zeros(len(mask), 1))
        positions, following = adapter.positions_of(self.arguments, memory, mask, self.generating)
        if adapter.config.positions == "compact":
            positions = prompt.position_ids.new_zeros(*positions.shape[:-1], alive.shape[1])
            index = prompt.index.expand_as(prompt.position_ids)
            positions = positions.expand(*prompt.position_ids.shape[:-1], -1).scatter(
                -1, index, prompt.position_ids
            )
        memory = replace(plain_memory(mask, following), position_ids=positions)
        given = {**self.arguments, "attention_mask": alive}
        given["position_ids"] = adapter.carried_positions(memory)
        with adapter.a_call(Call(True)):
            for name, part in self.reading.encoded.items():
                rows = torch.cat(part.output.pooler_output)
                whole = rows.new_full((len(part.kept), rows.shape[-1]), NEVER_SEEN)
                whole[part.kept.to(rows.device)] = rows
                waiting = adapter.call.serve.setdefault(adapter.encoders[name], [])
                waiting.append(in_form(part.given, whole))
            states = self.run(given)
        return self.of_tokens(states if self.decodes else prompt.take(states))

    def of_tokens(self, states: Tensor) -> Tensor:
        """States [B, m, D] without those of padding, or all of a decoder's."""
        return states.flatten(0, 1) if self.decodes else states[self.reading.prompt.mask != 0]

    def run(self, given: dict) -> Tensor:
        """The last hidden states, or the logits, that the model gives to these arguments."""
        inner = self.adapter.inner
        known = {*parameters(type(inner).forward), *self.adapter.columns(given), "attention_mask"}
        known = known - {"position_ids"} if self.decodes else known | {"position_ids"}
        left_out = {self.adapter.cache_name, "labels", "logits_to_keep"}
        given = {k: x for k, x in given.items() if k in known - left_out}
        given |= {"use_cache": False} if "use_cache" in known else {}
        output = inner(**given)
        return output[0] if isinstance(output, tuple) else getattr(output, states_name(output))
