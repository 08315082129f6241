"""A score that was learned: weights from a file."""

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from ...probe_files import Probe, find, read
from ...pruning.tokens import VisionTokens
from . import register_scorer

Key = tuple[str, str]  # weights, revision
LOADED: dict[Key, Probe] = {}  # files are read when a model is pruned, not in every forward
ON_DEVICE: dict[tuple[Key, torch.device], Probe] = {}


def load(*, weights: str = "", revision: str = "") -> Probe:
    """Read a probe's file anew; raises ValueError or OSError with one sentence."""
    if not weights:
        raise ValueError(
            "linear_probe needs scorer_options={'weights': …}: a safetensors file, a folder with one or a "
            "repository on the Hub"
        )
    path = find(weights, revision or None)
    probe = read(path, f"the probe {weights}")
    key = weights, revision
    for stale in [place for place in list(ON_DEVICE) if place[0] == key]:
        ON_DEVICE.pop(stale, None)
    LOADED[key] = probe
    return probe


@torch.compiler.assume_constant_result
def on_device(weights: str, revision: str, device: torch.device) -> Probe:
    """A probe on a device, copied once; read here only where a pruned model came from another process."""
    key = weights, revision
    if (key, device) not in ON_DEVICE:
        probe = LOADED[key] if key in LOADED else load(weights=weights, revision=revision)
        ON_DEVICE[key, device] = probe.to(device)
    return ON_DEVICE[key, device]


@register_scorer(
    "linear_probe", prepare=load, paper="this project; learned as in VisionSelector (arXiv:2510.16598)"
)
def linear_probe(tokens: VisionTokens, *, weights: str = "", revision: str = "") -> Tensor:
    """LayerNorm(x) · w + b of the hidden state, with trained weights; of a unit of its patches' mean.

    `weights` is a safetensors file, a folder with probe.safetensors in it or a repository on the Hub with one
    (`revision` is its branch, tag or commit): norm.weight and norm.bias [D], linear.weight [1, D],
    linear.bias [1]; with hidden.weight [H, D] and hidden.bias [H], GELU(LayerNorm(x) · hidden) goes into
    linear.weight [1, H]. Raises ValueError for another width than the model's. Returns [B, N].
    """
    probe = on_device(weights, revision, tokens.hidden_states.device)
    x, (weight, bias) = tokens.hidden_states.float(), probe.norm
    if x.shape[-1] != len(weight):
        raise ValueError(
            f"the probe {weights} scores tokens of {len(weight)} channels, not of {x.shape[-1]}; give one "
            "that was trained on this model"
        )
    x = layer_norm(x, (len(weight),), weight, bias)
    if probe.hidden is not None:
        x = gelu(linear(x, *probe.hidden))
    weight, bias = probe.linear
    return (x * weight).sum(dim=-1) + bias
