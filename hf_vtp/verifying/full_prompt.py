"""The full prompt with what the pruned model kept in it and the placeholders of what left masked as keys.

Positions are those that the unpruned model itself gave to the full prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..names import cache_in, cache_name
from .case import Case, before
from .condensed import condensed
from .deepstack import NEVER_SEEN, deepstack


def full_mask(case: Case) -> Tensor:
    """The prompt's mask, [B, n]."""
    ids = case.inputs["input_ids"]
    mask = case.inputs.get("attention_mask")
    return torch.ones_like(ids) if mask is None else mask


def embedded(case: Case) -> Tensor:
    """The prompt's embeddings [B, n, D]; a placeholder, which may lie beyond the vocabulary, as any word."""
    ids = case.inputs["input_ids"]
    media = torch.tensor([getattr(case.model.config, token) for token in case.media.values()])
    return case.inner.get_input_embeddings()(ids.masked_fill(torch.isin(ids, media.to(ids)), 0)).clone()


def other_columns(case: Case) -> dict[str, Tensor]:
    """Further arguments with one entry a column, that the language model reads."""
    return {k: x for k, x in case.adapter.columns(case.inputs).items() if k != "input_ids"}


def full_prompt(case: Case, positions: Tensor) -> dict[str, Tensor]:
    """Arguments of a forward of the unpruned model; `positions` [..., B, n] are those of the full prompt."""
    ids, alive, embeds = case.inputs["input_ids"], full_mask(case).clone(), embedded(case)
    images = zip(
        case.features(case.pruned), case.kept(case.pruned), case.kept_features(case.pruned), strict=True
    )
    for encoding in case.pruned.encodings:
        where = torch.nonzero(ids == getattr(case.model.config, encoding.token))  # [tokens, 2], row after row
        start = 0
        for _ in encoding.features:
            whole, keep, rows = next(images)
            own = where[start : start + len(whole)]
            start += len(whole)
            dropped = torch.ones(len(own), dtype=torch.bool, device=own.device)
            dropped[keep.to(own.device)] = False
            embeds[own[~dropped][:, 0], own[~dropped][:, 1]] = rows.to(embeds.device, embeds.dtype)
            embeds[own[dropped][:, 0], own[dropped][:, 1]] = NEVER_SEEN
            alive[own[dropped][:, 0], own[dropped][:, 1]] = 0
    if case.config.positions == "compact":
        first = positions.amin()  # not every model counts from 0
        positions = ((alive.long().cumsum(dim=-1) - 1).clamp(min=0) + first).expand_as(positions)
    told = {"attention_mask": alive, "position_ids": positions.clone(), **other_columns(case)}
    return {"inputs_embeds": embeds, **told}


def forward_positions(case: Case) -> Tensor:
    """The positions that the unpruned model's forward gives to the full prompt, [..., B, n]."""
    seen: list = []
    with before(case.language, lambda m, args, kwargs: seen.append(kwargs.get("position_ids"))):
        case.look(case.inputs)
    ids = case.inputs["input_ids"]
    return torch.arange(ids.shape[1], device=ids.device).expand_as(ids) if seen[0] is None else seen[0]


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
    ids, mask, embeds, start = case.inputs["input_ids"], full_mask(case), embedded(case), 0
    pad = 0 if case.recurrent else pad  # up to 5.12 such layers take no mask of a single row
    for encoding in case.baseline.encodings:
        where = torch.nonzero(ids == getattr(case.model.config, encoding.token))
        rows = torch.cat(features[start : start + len(encoding.features)])
        start += len(encoding.features)
        embeds[where[:, 0], where[:, 1]] = rows.to(embeds.device, embeds.dtype)
    columns = {"attention_mask": mask, "position_ids": positions, **other_columns(case)}
    widened = {name: torch.nn.functional.pad(x, (pad, 0)) for name, x in columns.items()}
    widened["inputs_embeds"] = torch.nn.functional.pad(embeds, (0, 0, pad, 0))
    with deepstack(case, case.baseline):
        return case.look(widened).outputs["hidden states"][:, pad:]
