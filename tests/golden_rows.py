"""What each method is to reach of the golden files: which tokens, which options, which arrays."""

from dataclasses import replace

import torch
from golden import (
    Check,
    Differences,
    Golden,
    Row,
    differing_sets,
    differing_values,
    in_order,
    keeps,
    keeps_values,
    places,
)

from hf_vtp.methods.table import METHODS
from hf_vtp.pruning.stage import observe, watched

ORDER = "the places of `keep`, in the order of the original; the library's ascend"
TOWER = "chosen among the tower's features; the released code chooses behind the projector"


def observed(golden: Golden, layers: dict[int, str], **changes):
    """Tokens whose `seen` the library made of two layers: "other" from the other arrays, "own" from its own."""
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


RECOVERABLE = ("vision", "recovered", "centres_mended")
ROWS = {
    "visionzip": Row(
        "visionzip",
        (keeps("keep"), keeps_values(in_order("keep_order"), ("keep_order",), "values")),
        {"dominant_by_attention": "part of `keep`", "targets": "part of `keep`"},
    ),
    "fastervlm": Row("fastervlm", (keeps("keep"),), {"keep_order": ORDER}),
    "scope": Row("scope", (keeps("keep"),), {"keep_order": ORDER}),
    "divprune": Row("divprune", (keeps("keep"),), {"keep_order": ORDER, "keep_of_tower_features": TOWER}),
    "cdpruner": Row(
        "cdpruner",
        (keeps("keep", text=slice(1)), Check(("relevance",), relevance)),
        {
            "keep_order": ORDER,
            "keep_of_tower_features": TOWER,
            "keep_its_sign": "relevance with the sign of CLIP's patches, which point away from their text",
            "keep_its_sign_order": "as `keep_its_sign`",
            "relevance_its_sign": "as `keep_its_sign`",
        },
        beyond="the image's and the text's embedding by CLIP, whose text encoder the models do not have",
    ),
    "mmtok": Row(
        "mmtok",
        (
            keeps("keep"),
            keeps("keep_temperature_01", config={"selector_options": {"text_temperature": 0.01}}),
        ),
        {
            "keep_order": ORDER,
            "keep_q_projected_temperature_01": "the image's tokens too are compared behind the projector",
        },
    ),
    "vispruner": Row(
        "vispruner",
        (keeps("keep"),),
        {"keep_order": ORDER, "keep_raster_rounds": "the rest is put in raster order before every round"},
    ),
    "prumerge": Row(
        "prumerge",
        (keeps_values(in_order("keep_order"), ("keep", "keep_order"), "values", Golden.other),),
        {
            "attention": "what `keep` is chosen by",
            "keep_plus_order": "of prumerge_plus",
            "values_plus": "of prumerge_plus",
        },
    ),
    "prumerge_plus": Row(
        "prumerge",
        (keeps_values(in_order("keep_plus_order"), ("keep_plus_order",), "values_plus", Golden.other),),
        {
            "attention": "what `keep` is chosen by",
            "keep": "of prumerge",
            "keep_order": "of prumerge",
            "values": "of prumerge",
        },
    ),
    "hiprune": Row(
        "hiprune",
        (
            hiprune_keeps("keep"),
            hiprune_keeps("keep_border_true_neighbours", turned=True),
            Check(("anchor_layer",), anchor_layers),
        ),
        {
            "keep_order": ORDER,
            "anchors": "part of `keep`",
            "anchors_border": "part of `keep_border`",
            "keep_border": "beyond the end of a row the next one begins, and the first and last token are marked",
        },
    ),
    "holov": Row(
        "holov",
        (keeps("keep_paper_square_crops"),),
        {
            "keep": "runs of tokens in raster order in the place of crops, .09 of V, and inside by attention alone",
            "keep_order": "as `keep`",
            "keep_of_tower_features": "as `keep`, before the projector",
            "keep_paper_square_crops_of_tower_features": TOWER,
        },
    ),
    "flowcut": Row(
        "flowcut",
        (
            keeps("keep", tokens=flow_tokens),
            keeps_values(in_order("keep_order"), ("keep_order",), "values", flow_tokens),
            Check(("scores_first_layer", "scores"), flow_scores),
            Check(("stage_layers",), flow_layers),
        ),
    ),
    "tome": Row(
        "tome",
        (tome_rounds("nocls", 0), tome_rounds("cls", 1)),
        beyond="the merge is between attention and MLP, which hooks cannot reach",
    ),
    "gtp": Row(
        "gtp",
        (keeps("keep_max"), keeps_values(in_order("keep_order_max"), ("keep_order_max",), "values_max")),
        {
            "graph": "what `values` are made with",
            "keep": "means over heads; the largest head (`keep_max`) is the best row of its table",
            "keep_order": "as `keep`",
            "values": "as `keep`",
        },
        beyond="the graph is made once, of the embeddings",
    ),
    "recoverable": Row(
        "recoverable",
        (
            keeps("keep_mended", tokens=Golden.other, text=slice(1)),
            keeps_values(recoverable_rows, RECOVERABLE, "values_mended", Golden.other, text=slice(1)),
        ),
        {
            "similarity": "what `recovered` is chosen by",
            "keep": "with two slips: the number of centres is a share of the channels, keys are of other tokens",
            "centres": "as `keep`",
            "values": "as `keep`",
        },
        beyond="the image's and the text's embedding by CLIP, whose text encoder the models do not have",
    ),
    "dart": Row(
        "dart",
        (keeps("keep_turns_by_norm"),),
        {
            "keep_turns_by_index": "turns by place; the original's follow a set and are arbitrary",
            "keep_turns_by_index_4_image_4_text": "as `keep_turns_by_index`",
            "keep_turns_by_norm_4_image_4_text": "pivots of the text, which has no keys where the tower ends",
        },
        beyond="the keys are of an early layer of the language model, and half of the pivots are of the text",
    ),
    "todre": Row("todre", (keeps("keep"),), {"keep_order": ORDER, "keep_of_tower_features": TOWER}),
    "zero_tprune": Row("zero_tprune", (Check(("scores",), page_rank),)),
}
