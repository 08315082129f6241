"""One stage: score, select, merge."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import VTPConfig
from .methods import PARTS
from .tokens import VisionTokens


@dataclass
class Outcome:
    """What one stage did to B images of one size; every field but `hidden_states` outlives the forward."""

    hidden_states: Tensor | None  # [B, K, D]
    keep: Tensor  # [B, K] ascending, among the tokens that entered
    assignment: Tensor | None  # [B, N] group of every token that entered; None = dropped tokens have none
    sizes: Tensor | None  # [B, K] float32; None = one each
    scores: Tensor | None  # [B, N] float32


def entry(config: VTPConfig, part: str):
    """The table row of the config's "scorer", "selector" or "merger"."""
    return PARTS[part][config.part(part)[0]]


def needs(config: VTPConfig) -> set[str]:
    """What the config's methods look at beyond hidden states."""
    return {need for part in PARTS for need in entry(config, part).needs}


def prune(tokens: VisionTokens, config: VTPConfig, before: Outcome | None = None) -> Outcome:
    """Score, select and merge.

    `before` is the outcome of the same stage in the forward that a checkpointed backward replays: its choice
    is kept, or gradients would belong to other tokens.
    """
    (scorer, score_options), (selector, select_options), (merger, merge_options) = map(config.part, PARTS)
    device = tokens.hidden_states.device.type
    with torch.autocast(device_type=device, enabled=False):  # scores in float32 whatever the model runs in
        if before is None:
            with torch.no_grad():
                scores = PARTS["scorer"][scorer].function(tokens, **score_options)
                keep = PARTS["selector"][selector].function(scores, tokens, **select_options)
        else:
            scores, keep = before.scores, before.keep
        merged = PARTS["merger"][merger].function(tokens, keep, **merge_options)
    return Outcome(merged[0], keep, merged[1], merged[2], scores)
