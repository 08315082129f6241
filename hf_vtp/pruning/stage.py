"""One stage: score, select, merge."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import VTPConfig
from ..methods.mergers.lloyd import lloyd
from ..methods.table import PARTS
from .registry import Entry, limit_of
from .tokens import Choice, VisionTokens, as_choice, take


@dataclass
class Outcome:
    """What one stage did to B images of one size; every field but `hidden_states` outlives the forward.

    Where counts follow the image, rows of `keep` are padded with -1, those of `sizes` with 0.
    """

    hidden_states: Tensor | None  # [B, K, D]
    keep: Tensor  # [B, K] ascending, among the tokens that entered
    assignment: Tensor | None  # [B, N] group of every token that entered; None = dropped tokens have none
    sizes: Tensor | None  # [B, K] float32; None = one each
    scores: Tensor | None  # [B, N] float32
    chosen: Choice | None = None  # what the selector returned
    order: Tensor | None = None  # [B, K] see VisionTokens; None = raster order


def entry(config: VTPConfig, part: str) -> Entry:
    """The table row of the config's "scorer", "selector" or "merger"."""
    return PARTS[part][config.part(part)[0]]


def needs(config: VTPConfig) -> set[str]:
    """What the config's methods look at beyond hidden states."""
    return {need for part in PARTS for need in entry(config, part).needs}


def prepare(config: VTPConfig) -> None:
    """What the config's methods do before the first forward; raises what they raise."""
    for part in PARTS:
        if entry(config, part).prepare:
            entry(config, part).prepare(**config.part(part)[1])


def adaptive(config: VTPConfig) -> bool:
    """Whether the number of kept tokens follows the image."""
    return any(entry(config, part).keep_ratio != "exact" for part in PARTS)


def limit(config: VTPConfig) -> int | None:
    """The most tokens an image may have, None if any number."""
    return limit_of(entry(config, part) for part in PARTS)


def weighs(config: VTPConfig) -> bool:
    """Whether the sizes of groups enter later attention."""
    return entry(config, "merger").weighs or config.part("merger")[1].get("lloyd", 0) > 0


def weighing_mergers() -> list[str]:
    """Names of the mergers whose groups weigh by their sizes."""
    return sorted(name for name, row in PARTS["merger"].items() if row.weighs)


def averages(config: VTPConfig) -> bool:
    """Whether groups become the means of their tokens, by their sizes."""
    return entry(config, "merger").averages or config.part("merger")[1].get("lloyd", 0) > 0


def watched(config: VTPConfig, stages: list[int], num_layers: int, num_prefix_tokens: int) -> dict[int, list]:
    """Layers that stages want to know of, and for each what to observe: (function, options) pairs."""
    wanted: dict[int, list] = {}
    for part in PARTS:
        row, options = entry(config, part), config.part(part)[1]
        for stage in stages if row.watches else ():
            for layer in row.watches(stage, num_layers, num_prefix_tokens, **options):
                if (row.observe, options) not in wanted.setdefault(layer, []):
                    wanted[layer].append((row.observe, options))
    return wanted


def without_autocast(tokens: VisionTokens) -> AbstractContextManager:
    """A block in which dtypes are what the code says; a device without autocast (meta) needs none."""
    device = tokens.hidden_states.device.type
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else nullcontext()


@torch.no_grad()
def observe(tokens: VisionTokens, wanted: list) -> Tensor:
    """What was asked of a layer, [B, N] float32."""
    with without_autocast(tokens):
        ((function, options),) = wanted
        return function(tokens, **options)


def prune(tokens: VisionTokens, config: VTPConfig, before: Outcome | None = None) -> Outcome:
    """Score, select and merge.

    `before` is the outcome of the same stage in the forward that a checkpointed backward replays: its choice
    is kept, or gradients would belong to other tokens.

    Raises ValueError for more tokens than a method takes, NotImplementedError on the meta device for counts
    that follow the image.
    """
    if tokens.hidden_states.is_meta and adaptive(config):
        raise NotImplementedError(
            f"the number of tokens that {config.method!r} keeps follows the image, and on the meta device "
            "there is none; choose a method whose keep_ratio is exact, see list_methods()"
        )
    most = limit(config)
    if most is not None and tokens.shape[1] > most:
        part = next(part for part in PARTS if entry(config, part).limit == most)
        raise ValueError(
            f"{part} {config.part(part)[0]!r} takes at most {most} tokens an image, not "
            f"{tokens.shape[1]}; choose another method for images of this size"
        )
    if "text" in needs(config) and tokens.text is None:
        raise ValueError(
            f"method {config.method!r} compares image tokens with the prompt; call the whole model with ids"
        )
    with without_autocast(tokens):  # scores in float32 whatever the model runs in
        if before is None:
            with torch.no_grad():
                scores, chosen = choose(tokens, config)
        else:
            scores, chosen = before.scores, before.chosen
        outcome = merge(tokens, config, chosen)
    outcome.scores, outcome.chosen = scores, chosen
    if chosen.order is not None and chosen.order.shape == outcome.keep.shape:  # a merger may keep more
        outcome.order = chosen.order
    return outcome


def choose(tokens: VisionTokens, config: VTPConfig) -> tuple[Tensor, Choice]:
    """Scores [B, N], and what the selector chose."""
    scorer, options = config.part("scorer")
    scores = PARTS["scorer"][scorer].function(tokens, **options)
    merger, options = config.part("merger")
    if PARTS["merger"][merger].extra:
        extra = PARTS["merger"][merger].extra(tokens.num_keep, **without_lloyd(options))
        most = None if tokens.max_keep is None else max(1, tokens.max_keep - extra)
        tokens = replace(tokens, num_keep=tokens.num_keep - extra, max_keep=most)
    selector, options = config.part("selector")
    chosen = PARTS["selector"][selector].function(scores, tokens, **options)
    return scores, as_choice(chosen)


def merge(tokens: VisionTokens, config: VTPConfig, chosen: Choice) -> Outcome:
    """What becomes of the tokens, with what the selector chose."""
    row, keep = entry(config, "merger"), chosen.keep
    tokens = replace(tokens, groups=chosen.groups, group_weights=chosen.weights)
    if not adaptive(config):
        return merged(tokens, config, keep)
    if row.rows_differ and not weighs(config):
        outcome = merged(tokens, config, keep.clamp(min=0))
        outcome.keep, padding = keep, keep < 0
        outcome.hidden_states = outcome.hidden_states.masked_fill(padding.unsqueeze(-1), 0)
        return outcome
    entered = (tokens.weights() > 0).sum(dim=1).tolist()
    # beside counts whether a selector made groups, since then a merger may make one token more
    grouped = [False] * len(keep) if chosen.groups is None else (chosen.groups >= 0).any(dim=1).tolist()
    shapes = list(zip(entered, (keep >= 0).sum(dim=1).tolist(), grouped, strict=True))
    parts = []
    for shape in sorted(set(shapes)):
        n, k, _ = shape
        images = torch.tensor([b for b, own in enumerate(shapes) if own == shape], device=keep.device)
        part = tokens.rows(images, n)
        if k < n:
            done = merged(part, config, keep[images, :k])
        else:
            every = torch.arange(n, device=keep.device).expand(len(images), n)
            done = Outcome(part.content, every, every, None, None)
        parts.append((images, done))
    return padded(parts, tokens)


def merged(tokens: VisionTokens, config: VTPConfig, keep: Tensor) -> Outcome:
    """One call of the merger, rows of one count; and Lloyd's refinement if it is asked for."""
    name, options = config.part("merger")
    hidden_states, assignment, sizes, *own = PARTS["merger"][name].function(
        tokens, keep, **without_lloyd(options)
    )
    keep = own[0] if own else keep
    if options.get("lloyd"):
        hidden_states, assignment, sizes = lloyd(tokens, keep, hidden_states, rounds=options["lloyd"])
    return Outcome(hidden_states, keep, assignment, sizes, None)


def without_lloyd(options: dict) -> dict:
    return {name: value for name, value in options.items() if name != "lloyd"}


def padded(parts: list[tuple[Tensor, Outcome]], tokens: VisionTokens) -> Outcome:
    """Outcomes of some images each as one, rows padded to the longest."""
    (b, n), longest = tokens.shape, max(done.keep.shape[1] for _, done in parts)
    keep = torch.full((b, longest), -1, device=tokens.hidden_states.device)
    assignment = torch.full((b, n), -1, device=keep.device)
    sizes = torch.zeros(b, longest, dtype=torch.float32, device=keep.device)
    states = tokens.content.new_zeros(b, longest, tokens.content.shape[-1])
    for images, done in parts:
        k = done.keep.shape[1]
        keep[images, :k] = done.keep
        if done.assignment is None:
            assignment[images[:, None], done.keep] = torch.arange(k, device=keep.device)
        else:
            assignment[images, : done.assignment.shape[1]] = done.assignment
        own = tokens.weights()[images]
        sizes[images, :k] = take(own, done.keep) if done.sizes is None else done.sizes
        # not in place: gradients flow
        wide = torch.nn.functional.pad(done.hidden_states, (0, 0, 0, longest - k))
        states = states.index_copy(0, images, wide)
    return Outcome(states, keep, assignment, sizes, None)
