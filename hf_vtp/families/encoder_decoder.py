"""Models whose prompt an encoder reads and a decoder attends to, Florence-2 say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..names import parameters
from ..prompts.callbacks import setting
from ..prompts.forward import named
from ..prompts.generate import with_text
from ..prompts.reader import Reading, put
from .placeholder import PlaceholderModel
from .table import FamilyRow

POSITIONS = "embed_positions"  # of an encoder, by the position that it counts itself
RECORDED = ("output_attentions", "output_hidden_states")  # what `generate` may be asked to return


class EncoderDecoder(PlaceholderModel):
    """The encoder's sequence gets shorter, and with it the mask that the decoder attends by.

    What the decoder writes is its own, so that nothing that a caller gets back has to be widened; the
    encoder's states come back as short as they are.
    """

    def __init__(self, row: FamilyRow, model: nn.Module, config: VTPConfig):
        super().__init__(row, model, config)
        encoder = self.inner.get_encoder()
        self.places = getattr(encoder, POSITIONS, None)
        known = isinstance(self.places, nn.Module) and "position_ids" in parameters(type(self.places).forward)
        if not known or "encoder_outputs" not in parameters(type(self.inner).forward):
            raise ValueError(
                f"the prompt of {type(model).__name__} is read by a {type(encoder).__name__}, whose "
                f"positions cannot be set; needed is one whose {POSITIONS} takes position_ids, as Bart's"
            )

    def attach(self) -> None:
        super().attach()
        self.tower.handles.append(self.places.register_forward_hook(self._place))

    def cached(self, arguments: dict) -> int:
        return 0  # of the encoder's columns, a cache holds what the decoder made of all of them

    def columns(self, arguments: dict) -> dict[str, Tensor]:
        return {k: x for k, x in super().columns(arguments).items() if not k.startswith("decoder_")}

    def refuse(self, arguments: dict) -> None:
        super().refuse({k: x for k, x in arguments.items() if k != "position_ids"})
        if arguments.get("position_ids") is not None:
            raise NotImplementedError("an encoder counts its positions itself; pass no position_ids")

    def generate(self, original: Callable, kwargs: dict):
        """`generate` with the encoder's output, which the decoder attends to from its first step on."""
        done = kwargs.get("encoder_outputs") is not None
        if done or self.idle() or not self.has_media(kwargs):
            return original(**kwargs)
        self.refuse_generation(kwargs)
        self.refuse(kwargs)
        kwargs, texts = with_text(kwargs)
        mask = self.generation_mask(kwargs[texts[0]], kwargs)
        with torch.no_grad():
            reading = self.read({**kwargs, "attention_mask": mask}, None)
            recorded = {name: setting(self.model, kwargs, name) or False for name in RECORDED}
            with self.placing(reading):
                encoded = self.inner.get_encoder()(
                    inputs_embeds=self.embedded(kwargs, reading),
                    attention_mask=reading.memory.mask,
                    return_dict=True,
                    **recorded,
                )
        rest = {k: x for k, x in kwargs.items() if k not in {"inputs_embeds", *self.media_names(kwargs)}}
        return original(**{**rest, "encoder_outputs": encoded, "attention_mask": reading.memory.mask})

    def embedded(self, arguments: dict, reading: Reading) -> Tensor:
        """The condensed prompt's embeddings with its features, [B, m, D]."""
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        if ids is not None:
            embeds = self.embed(reading.prompt.take(ids), reading.rows)
        else:
            embeds = reading.prompt.take(embeds)
        return put(embeds, reading.rows, reading.features)

    @contextmanager
    def placing(self, reading: Reading) -> Iterator[None]:
        """A forward of the encoder over a condensed prompt, whose columns keep their positions."""
        self.call.places = reading.memory.position_ids
        try:
            yield
        finally:
            self.call.places = None

    def _place(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        places = self.call.places
        if places is None:
            return None
        rows = type(module).forward(module, args[0], position_ids=places.flatten().to(args[0].device))
        return rows.view(*places.shape, -1)

    def _before(self, module: nn.Module, args: tuple, kwargs: dict):
        call = self.call
        if call.generating:  # a prompt on trial, see FirstUse
            return None
        call.places, call.reading, call.serve = None, None, {}
        arguments = named(module, args, kwargs) if args else kwargs
        if arguments.get("encoder_outputs") is not None:
            self.check_encoded(arguments)
            return None
        if self.idle() or not self.has_media(arguments):
            return None
        self.refuse(arguments)
        reading = call.reading = self.read(arguments, None)
        short = self.short(arguments, self.columns(arguments), reading, 0, None)
        call.places = reading.memory.position_ids
        if short.get("input_ids") is None:
            return (), short
        return (), {**short, **self.with_features(short["input_ids"], reading.rows, reading)}

    def check_encoded(self, arguments: dict) -> None:
        """Raise ValueError for a mask that does not fit the encoder's states."""
        states, mask = arguments["encoder_outputs"][0], arguments.get("attention_mask")
        if mask is not None and mask.shape[-1] != states.shape[1]:
            raise ValueError(
                f"encoder_outputs have {states.shape[1]} columns and attention_mask {mask.shape[-1]}; pass "
                "the pixels to have the mask shortened too, or use generate"
            )

    def _after(self, module: nn.Module, args: tuple, output):
        self.call.places = None
        self.ended(module)
