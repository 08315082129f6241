"""What holds of every scorer, selector and merger: rows, blocks, repetition, precision, gradients."""

from dataclasses import replace

import pytest
import torch
from references.cases import PADDED, RANDOM, WIDTH, build, converted, one
from references.probes import probe

from hf_vtp.methods.mergers import MERGERS
from hf_vtp.methods.mergers.lloyd import lloyd
from hf_vtp.methods.scorers import SCORERS
from hf_vtp.methods.selectors import SELECTORS
from hf_vtp.pruning import tokens as view
from hf_vtp.pruning.tokens import as_choice

CASES = {name: make() for name, make in {**RANDOM, **PADDED}.items()}
WHOLE = [name for name in CASES if name in RANDOM]
# mergers, and who makes their groups
GROUPED_BY = {"bipartite": "bipartite", "recycle": "recycled_cells", "weighted_mean": "ward"}


def scores_of(tokens):
    return torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0))


def call_scorer(name, tokens):
    needed = {"linear_probe": {"weights": probe(WIDTH)}}
    return SCORERS[name].function(tokens, **needed.get(name, {}))


def call_selector(name, tokens, scores=None):
    chosen = SELECTORS[name].function(scores_of(tokens) if scores is None else scores, tokens)
    return tuple(x for x in vars(as_choice(chosen)).values() if x is not None)


def merger_input(name, tokens):
    """Places as `prune` would hand them in, and the tokens with the groups of a selector that makes some."""
    extra = MERGERS[name].extra(tokens.num_keep) if name in MERGERS and MERGERS[name].extra else 0
    if name in GROUPED_BY:
        choice = as_choice(SELECTORS[GROUPED_BY[name]].function(scores_of(tokens), tokens))
        return replace(tokens, groups=choice.groups, group_weights=choice.weights), choice.keep
    return tokens, call_selector("top_k", replace(tokens, num_keep=tokens.num_keep - extra))[0]


def call_merger(name, tokens, keep):
    if name == "lloyd":
        index = keep.unsqueeze(-1).expand(-1, -1, tokens.content.shape[-1])
        return lloyd(tokens, keep, tokens.content.gather(1, index), rounds=2)
    return MERGERS[name].function(tokens, keep)


def everything(case):
    """(name, result) of all methods on the tokens of a case."""
    tokens = replace(CASES[case], num_keep=(CASES[case].shape[1] + 1) // 2, remaining=2)
    for name in SCORERS:
        yield name, (call_scorer(name, tokens),)
    for name, row in SELECTORS.items():
        if tokens.valid is None or row.keep_ratio != "exact":
            yield name, call_selector(name, tokens)
    for name in [*MERGERS, "lloyd"] if tokens.valid is None else ():
        yield name, call_merger(name, *merger_input(name, tokens))


@pytest.mark.parametrize("case", CASES)
def test_twice_the_same_bit_by_bit_and_no_global_generator(case):
    before = torch.get_rng_state()
    first, again = list(everything(case)), list(everything(case))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first) >= len(SCORERS)
    for (name, a), (_, b) in zip(first, again, strict=True):
        for x, y in zip(a, b, strict=True):
            assert (x is None and y is None) or torch.equal(x, y), name


@pytest.mark.parametrize("case", CASES)
def test_row_blocks_change_nothing(case, monkeypatch):
    whole = list(everything(case))
    monkeypatch.setattr(view, "BLOCK_ELEMENTS", 50)
    assert len(list(view.row_blocks(15, 20))) > 5
    for (name, a), (_, b) in zip(whole, everything(case), strict=True):
        same(name, a, b)


def same(name, a, b):
    for x, y in zip(a, b, strict=True):
        if x is None or not x.is_floating_point():
            assert (x is None and y is None) or torch.equal(x, y), name
        else:
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", CASES)
def test_a_row_does_not_depend_on_the_others(case):
    together = replace(CASES[case], num_keep=5, remaining=2)
    scores = scores_of(together)
    for b in range(together.shape[0]):
        alone = one(together, b)
        n = alone.shape[1]
        for name in SCORERS:
            same(name, (call_scorer(name, together)[b : b + 1, :n],), (call_scorer(name, alone),))
        for name, row in SELECTORS.items():
            if together.valid is not None and row.keep_ratio == "exact":
                continue
            own = call_selector(name, alone, scores[b : b + 1, :n])
            for x, y in zip(call_selector(name, together, scores), own, strict=True):
                assert x[b][x[b] >= 0].tolist() == y[0][y[0] >= 0].tolist(), name
        for name in [*MERGERS, "lloyd"] if together.valid is None else ():
            tokens, keep = merger_input(name, together)
            own = one(tokens, b)
            rows = [None if x is None else x[b : b + 1] for x in call_merger(name, tokens, keep)]
            same(name, rows, call_merger(name, own, keep[b : b + 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1e-4, 6000.0])
@pytest.mark.parametrize("case", ["CLS", "merge units", "frames"])
def test_large_and_small_numbers_in_half_precision(case, scale, dtype):
    tokens = converted(CASES[case], dtype, scale)
    tokens = replace(tokens, num_keep=6)
    for name in SCORERS:
        scores = call_scorer(name, tokens)
        assert scores.dtype == torch.float32 and scores.isfinite().all(), name
    for name in SELECTORS:
        keep = call_selector(name, tokens)[0]
        assert (keep[keep >= 0] < tokens.shape[1]).all() and (keep[:, 0] >= 0).all(), name
    for name in [*MERGERS, "lloyd"]:
        merged = call_merger(name, *merger_input(name, tokens))[0]
        assert merged.dtype == dtype and merged.isfinite().all(), name


@pytest.mark.parametrize("case", WHOLE)
@pytest.mark.parametrize("name", [*MERGERS, "lloyd"])
def test_gradients_reach_the_states(name, case):
    tokens, keep = merger_input(name, replace(CASES[case], num_keep=6))
    field = "hidden_states" if tokens.patches is None else "patches"
    states = getattr(tokens, field).clone().requires_grad_()
    if field == "patches":
        tokens = replace(tokens, hidden_states=states.mean(dim=2))
    merged = call_merger(name, replace(tokens, **{field: states}), keep)[0]
    (gradient,) = torch.autograd.grad(merged.sum(), states)
    kept = gradient[torch.arange(len(keep))[:, None], keep]
    assert gradient.isfinite().all() and (kept != 0).all()
    gone = (gradient.flatten(2).abs().sum(dim=2) > 0).sum(dim=1)
    assert (gone == 6).all() if name == "drop" else (gone > 6).all()


@pytest.mark.parametrize("value", [0.1, 0.7, 3.3])
@pytest.mark.parametrize("n", [9, 37, 250])
def test_rounding_makes_no_ranking_of_equal_tokens(n, value):
    """Where a mean, a range or a product of equal numbers is not exact, the lowest indices stay."""
    g = torch.Generator().manual_seed(n)
    tokens = build(lambda shape, _: torch.randn(shape[-1], generator=g).expand(shape), (1, 1, n), n)
    for name in set(SCORERS) - {"random", "uniform", "flow"}:
        scores = call_scorer(name, tokens)
        torch.testing.assert_close(scores, scores[:, :1].expand_as(scores), rtol=2e-6, atol=0)  # sums of n
    assert (call_scorer("text_relevance", tokens) == 0.5).all()
    scores, tokens = torch.full((2, n), value), replace(tokens, num_keep=n // 3, share=0.3)
    for name in ("threshold", "iqr", "recovered"):
        assert call_selector(name, tokens, scores)[0].tolist() == [[0], [0]], name
    for deviations in (-0.5, 0.5):  # of a deviation that is none
        keep = SELECTORS["threshold"].function(scores, tokens, deviations=deviations)
        assert keep.tolist() == [[0], [0]]
    every = call_selector("threshold", replace(tokens, share=1.0), scores)[0]
    assert every.tolist() == [list(range(n))] * 2
    for name in ("top_k", "pivots", "dpp", "nms", "unlike_ranked"):
        assert call_selector(name, tokens, scores)[0].tolist() == [list(range(n // 3))] * 2, name
