"""The full prompt with what the pruned model kept in it, the placeholders of dropped tokens masked as keys.

Positions are those that the unpruned model itself gave to the full prompt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..names import cache_in, cache_name
from ..prompts.encoders import in_form
from .case import Case, before
from .condensed import condensed
from .deepstack import NEVER_SEEN, deepstack
from .outcome import NotApplicable
from .weighing import log_sizes_of, weighing


def full_mask(case: Case) -> Tensor:
    """The prompt's mask, [B, n]."""
    ids = case.inputs["input_ids"]
    mask = case.inputs.get("attention_mask")
    return torch.ones_like(ids) if mask is None else mask


def compared(case: Case) -> Tensor:
    """Which of the last hidden states are compared, bool [B, n]: none of padding."""
    if case.decodes:
        states = case.baseline.outputs["hidden states"]
        return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
    return full_mask(case) != 0


def embedded(case: Case) -> Tensor:
    """The prompt's embeddings [B, n, D]; a placeholder, which may lie beyond the vocabulary, as any word."""
    ids = case.inputs["input_ids"]
    media = torch.tensor([getattr(case.model.config, token) for token in case.media.values()])
    return case.inner.get_input_embeddings()(ids.masked_fill(torch.isin(ids, media.to(ids)), 0)).clone()


def other_columns(case: Case) -> dict[str, Tensor]:
    """Further arguments with one entry a column, that the language model reads."""
    return {k: x for k, x in case.adapter.columns(case.inputs).items() if k != "input_ids"}


@contextmanager
def full_prompt(case: Case, positions: Tensor) -> Iterator[dict[str, Tensor]]:
    """Arguments of a forward of the unpruned model; `positions` [..., B, n] are those of the full prompt.

    Inside the `with` block encoders give what the arguments cannot hold.
    """
    ids, alive, features = case.inputs["input_ids"], full_mask(case).clone(), []
    images = zip(
        case.features(case.pruned), case.kept(case.pruned), case.kept_features(case.pruned), strict=True
    )
    log_sizes = torch.zeros_like(alive, dtype=torch.float32)
    sizes = iter(log_sizes_of(case) if case.config.language_weights else ())
    for encoding in case.pruned.encodings:
        where = torch.nonzero(ids == getattr(case.model.config, encoding.token))  # [tokens, 2], row after row
        start = 0
        for _ in encoding.features:
            whole, keep, rows = next(images)
            own = where[start : start + len(whole)]
            start += len(whole)
            dropped = torch.ones(len(own), dtype=torch.bool, device=own.device)
            dropped[keep.to(own.device)] = False
            alive[own[dropped][:, 0], own[dropped][:, 1]] = 0
            if case.config.language_weights:
                log_sizes[own[~dropped][:, 0], own[~dropped][:, 1]] = next(sizes).to(log_sizes.device)
            features.append(torch.full_like(whole, NEVER_SEEN).index_copy(0, keep.to(rows.device), rows))
    if case.config.positions == "compact":
        first = positions.amin()  # not every model counts from 0
        positions = ((alive.long().cumsum(dim=-1) - 1).clamp(min=0) + first).expand_as(positions)
    columns = {"attention_mask": alive, "position_ids": positions.clone(), **other_columns(case)}
    if case.decodes:
        columns.pop("position_ids")  # an encoder counts columns
    weights = weighing(case, log_sizes)
    with holding(case, features) as prompt, deepstack(case, case.pruned), weights:
        yield {**prompt, **columns}


@contextmanager
def holding(case: Case, features: list[Tensor]) -> Iterator[dict[str, Tensor]]:
    """Arguments for a prompt whose images are these features, [T, D] each: embeddings [B, n, D], or its ids.

    Ids where a model is pruned after its features, since it may read more of them than embeddings say; in the
    `with` block its encoders then give those features.
    """
    parts, start = {}, 0
    for encoding in case.baseline.encodings:
        rows = features[start : start + len(encoding.features)]
        start += len(rows)
        parts[encoding.pixels] = encoding, torch.cat(rows)
    ids, inner = case.inputs["input_ids"], case.inner
    if not case.adapter.serves or case.recurrent:
        embeds = embedded(case)
        for encoding, rows in parts.values():
            where = torch.nonzero(ids == getattr(case.model.config, encoding.token))
            embeds[where[:, 0], where[:, 1]] = rows.to(embeds.device, embeds.dtype)
        yield {"inputs_embeds": embeds}
        return

    def giving(name: str) -> Callable:
        original = getattr(inner, name)
        waiting = [rows for encoding, rows in parts.values() if encoding.encoder == name]

        @functools.wraps(original)
        def call(*args, **kwargs):
            return in_form(original(*args, **kwargs), waiting.pop(0))

        return call

    names = {encoding.encoder for encoding, _ in parts.values()}
    vars(inner).update({name: giving(name) for name in names})
    try:
        yield {"input_ids": ids, **{k: case.inputs[k] for k in case.adapter.media_names(case.inputs)}}
    finally:
        for name in names:
            vars(inner).pop(name)


def forward_positions(case: Case) -> Tensor:
    """The positions that the unpruned model's forward gives to the full prompt, [..., B, n]."""
    seen: list = []
    with before(case.language, lambda m, args, kwargs: seen.append(kwargs.get("position_ids"))):
        case.look(case.inputs)
    ids = case.inputs["input_ids"]
    positions = torch.arange(ids.shape[1], device=ids.device)[None] if None in (seen or [None]) else seen[0]
    return positions.expand(*positions.shape[:-2], *ids.shape)


def generate_positions(case: Case) -> Tensor:
    """The positions that the unpruned model's `generate` gives to the full prompt, as it carries them.

    Raises RuntimeError where it leaves them to the forward.
    """
    seen: list = []
    with before(case.model, lambda module, args, kwargs: seen.append(kwargs.get("position_ids"))):
        greedy(case, case.inputs, 1)
    if seen[0] is None:
        raise RuntimeError("generate of this Transformers hands no positions to the forward of this model")
    return seen[0]


def greedy(case: Case, inputs: dict, new_tokens: int) -> tuple[Tensor, Tensor]:
    """Sequences the model as it is now writes word by word, and the logits of each [B, new, vocabulary].

    Whatever else the model's generation config asks for is left out: penalties for words of the prompt, say,
    would find none in the reference, which has embeddings.
    """
    own = case.model.generation_config
    case.model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=0 if own.pad_token_id is None else own.pad_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        suppress_tokens=placeholder_ids(case),
        return_dict_in_generate=True,
        output_logits=True,
    )
    try:
        output = case.model.generate(**inputs, max_new_tokens=new_tokens)
    finally:
        case.model.generation_config = own
    return output.sequences, torch.stack(output.logits, dim=1)


def greedy_by_hand(case: Case, inputs: dict, new_tokens: int) -> tuple[Tensor, Tensor]:
    """The same from a prompt of embeddings with positions, by forwards alone; the sequences [B, new] are new.

    Not every model's `generate` takes embeddings, and some move the positions they are given.
    """
    name, words, logits = cache_name(case.inner), [], []
    mask, positions = inputs["attention_mask"], inputs["position_ids"]
    inputs = {**inputs, "use_cache": True}
    for _ in range(new_tokens):
        output = case.model(**inputs, **case.last_logits, return_dict=True)
        logits.append(output.logits[:, -1])
        allowed = logits[-1].index_fill(-1, torch.tensor(placeholder_ids(case)).to(mask), float("-inf"))
        words.append(allowed.argmax(dim=-1))
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        positions = positions[..., -1:] + 1
        inputs = {"input_ids": words[-1][:, None], "attention_mask": mask, "position_ids": positions}
        inputs[name] = cache_in(output)
        if inputs[name] is None:
            raise NotApplicable(
                f"the forward of {type(case.model).__name__} returns no cache to go on from by hand"
            )
    return torch.stack(words, dim=1), torch.stack(logits, dim=1)


def placeholder_ids(case: Case) -> list[int]:
    """The ids that stand for images or videos, within the vocabulary."""
    ids = [getattr(case.model.config, token) for token in case.media.values()]
    return [i for i in ids if i < case.model.config.get_text_config().vocab_size]


def short_prompt(case: Case, full: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a full prompt must agree with: itself, or where masked columns leave traces, without them."""
    return condensed(full) if case.recurrent else full


def shown(x: Tensor, alive: Tensor) -> Tensor:
    """Rows of the full prompt [B, n, D] as a caller sees them: dropped ones repeat the last kept before."""
    columns = torch.arange(alive.shape[1], device=x.device)
    source = torch.where(alive.to(x.device) != 0, columns, -1).cummax(dim=-1).values  # [B, n]
    rows = x.gather(1, source.clamp(min=0).unsqueeze(-1).expand_as(x))
    return rows.masked_fill(source.unsqueeze(-1) < 0, 0)


def same_prompt(case: Case, features: list[Tensor], positions: Tensor, pad: int = 3) -> Tensor:
    """Last hidden states [B, n, D] of the unpruned model for the full prompt, its images these features.

    Nothing is dropped; columns of padding in front make the kernels others than those of a plain forward.
    """
    # an encoder would count them; up to 5.12 layers with a running state take no mask of a single row
    pad = 0 if case.decodes or case.recurrent else pad
    columns = {"attention_mask": full_mask(case), "position_ids": positions, **other_columns(case)}
    with holding(case, features) as prompt, deepstack(case, case.baseline):
        ends = {name: (0, 0) if name == "inputs_embeds" else () for name in ("inputs_embeds", "input_ids")}
        texts = {name: (*end, pad, 0) for name, end in ends.items() if name in prompt}
        widened = {**prompt, **{k: torch.nn.functional.pad(prompt[k], by) for k, by in texts.items()}}
        widened |= {name: torch.nn.functional.pad(x, (pad, 0)) for name, x in columns.items()}
        if case.decodes:
            widened.pop("position_ids")
        return case.look(widened).outputs["hidden states"][:, pad:]
