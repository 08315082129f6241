"""Comparisons with golden data that one method alone needs."""

from dataclasses import replace

import torch
from golden import Check, Differences, Golden, differing_sets, differing_values, places

from hf_vtp.methods.table import METHODS
from hf_vtp.pruning.stage import observe, watched


def observed(golden: Golden, layers: dict[int, str], **changes):
    """Tokens that have seen some layers: "other" is of the arrays of that name, "own" of the tokens' own."""
    tokens = golden.tokens(**changes)
    wanted = watched(golden.config(), [tokens.layer], 24, tokens.num_prefix_tokens)
    seen = {}
    for layer, of in layers.items():
        of_layer = golden.other(**changes) if of == "other" else tokens
        if layer in wanted:
            seen[layer] = observe(replace(of_layer, layer=layer), wanted[layer])
    return replace(tokens, seen=seen)


def hiprune_tokens(golden: Golden, turned: bool = False):
    """Layer 22 of CLIP-L, which has seen layer 8; `turned`: anchors at the border."""
    if turned:
        key = golden.x["k_other"].clone()
        key[..., 0] *= -1
        golden = replace(golden, x={**golden.x, "k_other": key})
    return observed(golden, {8: "other"}, layer=22)


def alpha(golden: Golden, **changes):
    tokens = hiprune_tokens(golden, **changes)
    return golden.prune(tokens, selector_options={"alpha": golden.case["alpha"]})


def hiprune_keeps(array: str, **changes) -> Check:
    def run(golden: Golden) -> Differences:
        yield from differing_sets(alpha(golden, **changes).keep, golden.out[array], array)

    return Check((array,), run)


def anchor_layers(golden: Golden) -> Differences:
    """Layers that a stage watches, of CLIP-L and of Qwen2.5-VL."""
    for stage, layers, prefix, anchors in golden.out["anchor_layer"].tolist():
        own = sorted(watched(golden.config(), [stage], layers, prefix))
        if own != [anchors]:
            yield f"anchor_layer: {own} of {layers}, not {anchors}"


def flow_tokens(golden: Golden):
    """The second of two layers."""
    return observed(golden, {0: "other", 1: "own"}, layer=1, remaining=golden.case["remaining"])


def flow_scores(golden: Golden) -> Differences:
    tokens = flow_tokens(golden)
    yield from same_direction(tokens.seen[0], golden.out["scores_first_layer"], "scores_first_layer")
    yield from same_direction(golden.prune(tokens).scores, golden.out["scores"], "scores")


def flow_layers(golden: Golden) -> Differences:
    own, layers = METHODS["flowcut"].layers(23), golden.out["stage_layers"].tolist()
    if own != layers:
        yield f"stage_layers: {own}, not {layers}"


def same_direction(own: torch.Tensor, golden: torch.Tensor, what: str) -> Differences:
    """Scores of each image equal but for a scale."""
    own, golden = (x / x.abs().sum(dim=1, keepdim=True) * x.shape[1] for x in (own, golden))
    yield from differing_values(own, golden, what)


def relevance(golden: Golden) -> Differences:
    scores = golden.prune(golden.tokens(text=slice(1))).scores
    yield from differing_values(scores, golden.out["relevance"], "relevance")


def page_rank(golden: Golden) -> Differences:
    options = {"iterations": golden.case["iterations"], "least_variance": 0.0, "most_variance": 1e6}
    scores = golden.prune(golden.tokens(), scorer_options=options).scores
    yield from same_direction(scores, golden.out["scores"], "scores")


def tome_rounds(tag: str, prefix: int) -> Check:
    """Two rounds of merges: the metric of the first is the keys, of the second what came out of the first."""

    def run(golden: Golden) -> Differences:
        tokens, group = golden.tokens(prefix=prefix), torch.arange(64).expand(len(golden.x["hidden"]), 64)
        for turn in (1, 2):
            outcome = golden.prune(replace(tokens, num_keep=64 - turn * golden.case["r"]))
            group = outcome.assignment.gather(1, group)  # of each token of the image, its place in `keep`
            least = first_of_group(group)
            differences = list(differing_groups(least, golden.out[f"groups_{tag}_{turn}"], f"{tag}_{turn}"))
            yield from differences
            if differences:
                return
            for b, order in enumerate(golden.out[f"order_{tag}_{turn}"]):
                own = group[b, order.long()]
                for name, made in (("values", outcome.hidden_states), ("sizes", outcome.sizes)):
                    name = f"{name}_{tag}_{turn}"
                    yield from differing_values(made[b, own], golden.out[name][b], f"{name}, image {b}")
            metric = outcome.hidden_states
            if prefix:
                metric = torch.cat([golden.x["hidden"][:, :1], metric], dim=1)
            before = torch.arange(64).expand_as(group) if tokens.positions is None else tokens.positions
            tokens = replace(
                tokens,
                hidden_states=outcome.hidden_states,
                sizes=outcome.sizes,
                positions=before.gather(1, outcome.keep),
                order=outcome.order,
                full_key=metric.unsqueeze(1),
            )

    arrays = [f"{a}_{tag}_{n}" for a in ("groups", "order", "values", "sizes") for n in (1, 2)]
    return Check(tuple(arrays), run)


def first_of_group(group: torch.Tensor) -> torch.Tensor:
    """The least raster index among the tokens of each token's group, [B, 64]."""
    same = group.unsqueeze(2) == group.unsqueeze(1)
    return torch.where(same, torch.arange(group.shape[1]), group.shape[1]).amin(dim=2)


def differing_groups(own: torch.Tensor, golden: torch.Tensor, what: str) -> Differences:
    if not torch.equal(own, golden.long()):
        yield f"groups_{what}: {int((own == golden).sum())} of {own.numel()} tokens are in the same group"


def recoverable_rows(out: dict, b: int) -> list[int]:
    """The first two groups ascending, then the centres."""
    first = places(out["vision"][b]) + places(out["recovered"][b])
    return sorted(first) + places(out["centres_mended"][b])
