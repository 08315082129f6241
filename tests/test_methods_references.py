"""Every scorer, selector and merger against its plain loop in float64 (tests/references)."""

from dataclasses import replace

import pytest
import torch
from references import greedy, mergers, more_options, references, scorers, selectors
from references.cases import DEGENERATE, PADDED, RANDOM, WIDTH, converted
from references.image import image
from references.probes import probe

from hf_vtp.methods.mergers import MERGERS
from hf_vtp.methods.mergers.lloyd import lloyd
from hf_vtp.methods.recoverable import local_outliers
from hf_vtp.methods.scorers import SCORERS
from hf_vtp.methods.selectors import SELECTORS
from hf_vtp.pruning.tokens import Choice, as_choice

SCORE = references(SCORERS, scorers)
SELECT = references(SELECTORS, selectors, greedy)
MERGE = references(MERGERS, mergers)
# mergers, and who makes their groups
GROUPED_BY = {"bipartite": "bipartite", "recycle": "recycled_cells", "weighted_mean": "ward"}

CASES = {name: make() for name, make in {**RANDOM, **DEGENERATE, **PADDED}.items()}
for dtype, names in {
    torch.float16: ("CLS", "merge units", "all equal", "one outlier", "zeros", "padded"),
    torch.bfloat16: ("CLS", "frames of units", "one token", "padded units"),
}.items():
    CASES |= {f"{name}, {dtype}": converted(CASES[name], dtype) for name in names}
CASES = {name: (tokens, [image(tokens, b) for b in range(tokens.shape[0])]) for name, tokens in CASES.items()}

OBSERVED = {"flow": scorers.of_layer, "global_local": scorers.cls_attention}
OBSERVED |= {"anchors_buffers": scorers.received_attention}
COUNTING = [name for name, row in SELECTORS.items() if row.keep_ratio != "exact"]
UNSCORED = {  # do not look at scores
    "bipartite",
    "max_coverage",
    "max_min_diversity",
    "principal_groups",
}
# where scores are equal two tokens often gain the same, by the formula, and rounding decides between them:
# two that resemble nothing but each other, the two of a crop. The case "signs" has such ties, exact ones.
MIRRORED = {"scope", "crop_quota"}

CLOSE = dict(rtol=2e-5, atol=1e-6)

# options beside the defaults
OPTIONS = {
    "flow": [{"momentum": 0.0}, {"momentum": 0.9}],
    "own_and_received": [{"over": "mean"}],
    "pagerank": [{"iterations": 1}, {"iterations": 7, "least_variance": 0.2}, {"most_variance": 0.05}],
    "qk_norm": [{"of": of, "order": order} for of in ("q", "qk") for order in ("largest", "smallest")],
    "random": [{"seed": 1}, {"seed": 2**32 - 1}],
    "token_norm": [{"order": "smallest"}],
    "anchors_buffers": [{"alpha": 1.0}, {"alpha": 5.0}],
    "crop_quota": [{"crops": 2}, {"crops": 1}, {"power": 3.0, "crops": 3}, {"power": 0.0}],
    "grid_union": [{"stride": 1}, {"stride": 2}],
    "important_plus_diverse": [{"share": 0.0}, {"share": 1.0}, {"step": 1}, {"share": 0.3, "step": 100}],
    "iqr": [{"whisker": 0.0}, {"whisker": 0.3}],
    "iqr_and_stride": [{"whisker": 0.0}, {"whisker": 0.3}],
    "mass": [{"p": 0.0}, {"p": 0.5}, {"p": 1.0}],
    "max_coverage": [
        {"alpha": 0.0, "text_temperature": 0.3},
        {"alpha": 4.0, "text_temperature": 1.0, "image_temperature": 0.5},
    ],
    "lloyd": [{"rounds": 3}],
    "nms": [{"rounds": 3}, {"rounds": 100}],
    "spread": [
        {"place": 0.0, "score": 0.0},
        {"place": 1.0, "score": 0.0, "reach": 100.0, "rounds": 1},
        {"score": 3.0, "rounds": 100},
    ],
    "pivots": [{"pivots": 1}, {"pivots": 100}],
    "recovered": [{"neighbours": 1, "centre_neighbours": 1}, {"neighbours": 4, "centre_neighbours": 3}],
    "scope": [{"alpha": 0.0}, {"alpha": 3.0}],
    "threshold": [{"at": 0.25}, {"deviations": 0.5}, {"deviations": -1.0}],
    "unlike_ranked": [{"by_score": 0.0}, {"by_score": 1.0}],
    "contextual": [{"share": 0.0}, {"share": 0.5}, {"share": 1.0}],
    "centres": [{"neighbours": 1}, {"neighbours": 3, "text_weight": 0.0}],
    "knn_weighted": [{"neighbours": 1}, {"neighbours": 3}],
    "many_to_many": [{"temperature": 0.5}],
    "propagate": [{"alpha": 1.0, "neighbours": 1}, {"neighbours": 3}],
}
for table in (SCORERS, SELECTORS, MERGERS):
    OPTIONS |= more_options(table)
# fields of the tokens that a method of that name follows
FIELDS = {
    "spread": [{}, {"pooled": True}],
    "entropy": [{"remaining": 0, "target": 3}, {"remaining": 1, "target": 2}, {"remaining": 9}],
}
BOUNDS = {"min_keep": 1, "max_keep": None, "share": 0.5, "remaining": 2, "target": 1, "pooled": False}
FIELDS |= {
    name: [{}, {"max_keep": 2, "share": 0.2}, {"min_keep": 4, "max_keep": 7, "share": 0.8}]
    + FIELDS.get(name, [])
    for name in COUNTING
}


def options_of(name):
    if name == "linear_probe":  # has no default
        return [{"weights": probe(WIDTH)}, {"weights": probe(WIDTH, 3)}]
    return [{}, *OPTIONS.get(name, [])]


def counts_of(tokens):
    n = tokens.shape[1]
    return sorted({1, n // 6 or 1, (n + 1) // 2, n})  # a sixth takes several rounds of pairs


def scores_of(tokens):
    """Random ones of both signs and of one, with ties, all equal, all zero."""
    b, n = tokens.shape
    g = torch.Generator().manual_seed(n)
    few = torch.randint(-1, 3, (b, n), generator=g).float()
    signed, positive = torch.randn(b, n, generator=g), torch.rand(b, n, generator=g)
    return {"signed": signed, "positive": positive, "few": few, "equal": few * 0 + 2.5, "zero": few * 0}


def test_every_method_of_the_package_has_a_reference():
    for table, loops in ((SCORERS, SCORE), (SELECTORS, SELECT), (MERGERS, MERGE)):
        own = {name for name, row in table.items() if row.function.__module__.startswith("hf_vtp.")}
        assert own and not {name for name in own if loops.get(name) is None}
    assert not OPTIONS.keys() - SCORERS.keys() - SELECTORS.keys() - MERGERS.keys() - {"lloyd"}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SCORERS)
def test_scorers(name, case):
    tokens, images = CASES[case]
    b, n = tokens.shape
    tokens = replace(tokens, num_keep=(n + 1) // 2)
    for options in options_of(name):
        scores = SCORERS[name].function(tokens, **options)
        compare_scores(scores, [SCORE[name](im.having(num_keep=(n + 1) // 2), **options) for im in images], n)
        if case.startswith("all equal") and name not in ("random", "uniform", "flow"):
            assert (scores == scores[:, :1]).all()


@pytest.mark.parametrize("case", CASES)
def test_what_is_observed_of_a_layer(case):
    tokens, images = CASES[case]
    for name, reference in OBSERVED.items():
        row = SCORERS[name] if name in SCORERS else SELECTORS[name]
        compare_scores(row.observe(tokens), [reference(im) for im in images], tokens.shape[1])


def compare_scores(scores, expected, n):
    assert scores.dtype == torch.float32 and scores.shape == (len(expected), n) and scores.isfinite().all()
    for own, plain in zip(scores.double(), expected, strict=True):
        torch.testing.assert_close(own[: len(plain)], torch.tensor(plain).double(), **CLOSE)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SELECTORS)
def test_selectors(name, case):
    tokens, images = CASES[case]
    if tokens.valid is not None and name not in COUNTING:
        return  # never sees padding
    n, scores = tokens.shape[1], scores_of(tokens)
    for count in counts_of(tokens):
        for kind in ("signed",) if count != (n + 1) // 2 or name in UNSCORED else scores:
            several = kind in ("signed", "few")
            if case.partition(",")[0] in RANDOM and name in MIRRORED and kind not in ("signed", "positive"):
                continue
            for options in options_of(name) if several else [{}]:
                if case.partition(",")[0] in RANDOM and options.get("alpha") == 0 and name in MIRRORED:
                    continue
                for values in FIELDS.get(name, [{}]) if kind == "signed" else [{}]:
                    values = {**BOUNDS, "num_keep": count, **values}
                    for im in images:
                        im.having(**values)
                    compare_selection(name, scores[kind], replace(tokens, **values), options, images)


def compare_numbers(found, plain):
    """Places are the same, weights the same but for rounding."""
    if not found.is_floating_point():
        assert found.tolist() == plain
    else:
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), torch.tensor(plain).double(), **CLOSE)


def compare_selection(name, scores, tokens, options, images):
    choice = as_choice(SELECTORS[name].function(scores, tokens, **options))
    keep, *more = (x for x in vars(choice).values() if x is not None)
    assert keep.dtype == torch.int64
    if name not in COUNTING:
        assert keep.shape == (len(scores), tokens.num_keep)
    for b, im in enumerate(images):
        expected = SELECT[name](scores[b, : im.n].double().tolist(), im, **options)
        if isinstance(expected, tuple):
            expected, *own = expected
            assert len(more) == len(own)
            for x, plain in zip(more, own, strict=True):
                compare_numbers(x[b, : len(plain)], plain)
            places = choice.groups[b, expected].tolist()  # a kept token is in its own group, or in none
            assert all(g in (-1, i) for i, g in enumerate(places))
        places = keep[b].tolist()
        assert places == expected + [-1] * (len(places) - len(expected))
        assert expected == sorted(set(expected)) and len(expected) >= 1
        if name in COUNTING:
            most = im.n if im.max_keep is None else im.max_keep
            assert min(im.min_keep, most, im.n) <= len(expected) <= most


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0].valid is None])
@pytest.mark.parametrize("name", [*MERGERS, "lloyd"])
def test_mergers(name, case):
    tokens, images = CASES[case]
    b, n = tokens.shape
    g = torch.Generator().manual_seed(0)
    for count in counts_of(tokens):
        for options in options_of(name):
            extra = name != "lloyd" and MERGERS[name].extra
            own = count - (extra(count, **options) if extra else 0)
            keep = torch.stack([torch.randperm(n, generator=g)[:own].sort().values for _ in range(b)])
            for selector in (None, GROUPED_BY[name]) if name in GROUPED_BY and count > 1 else (None,):
                choice = Choice(keep)  # as after a selector that makes no groups
                if selector:
                    scores = torch.rand(b, n, generator=g)
                    choice = as_choice(SELECTORS[selector].function(scores, replace(tokens, num_keep=count)))
                now = {"groups": choice.groups, "group_weights": choice.weights}
                for i, im in enumerate(images):
                    im.having(**{key: None if x is None else x[i].tolist() for key, x in now.items()})
                    im.having(num_keep=count)
                now = replace(tokens, num_keep=count, **now)
                compare_merger(name, now, choice.keep, options, images)


def compare_merger(name, tokens, keep, options, images):
    before = tokens.content[torch.arange(len(keep))[:, None], keep]
    if name == "lloyd":
        merged, groups, sizes, *places = lloyd(tokens, keep, before, **options)
    else:
        merged, groups, sizes, *places = MERGERS[name].function(tokens, keep, **options)
    assert merged.dtype == tokens.content.dtype
    exact = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[merged.dtype]
    for b, im in enumerate(images):
        own = keep[b].tolist()
        if name == "lloyd":
            expected = mergers.lloyd(im, own, before[b].double().tolist(), **options)
        else:
            expected = MERGE[name](im, own, **options)
        states = torch.tensor(expected[0]).double()
        torch.testing.assert_close(merged[b].double(), states, atol=exact, rtol=exact)
        assert (groups is None) == (expected[1] is None) and (sizes is None) == (expected[2] is None)
        if groups is not None:
            assert groups[b].tolist() == expected[1]
        if sizes is not None:
            assert sizes.dtype == torch.float32 and sizes[b].tolist() == expected[2]
            if -1 not in expected[1]:
                assert sizes[b].sum() == sum(im.sizes)
        if places:
            assert places[0][b].tolist() == expected[3]
            own = expected[3]
        if groups is not None:
            assert groups[b, own].tolist() == list(range(len(own)))


@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_outliers_are_those_of_scikit_learn(neighbours):
    lof = pytest.importorskip("sklearn.neighbors").LocalOutlierFactor
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) ** 3
    for length in (2, 5, 23, 40):
        among = torch.zeros(3, 40, dtype=torch.bool)
        among[:, 40 - length :] = True
        found = local_outliers(values, among, neighbours)
        for b in range(3):
            own = values[b, among[b]].double()
            near = min(neighbours, length - 1)
            labels = lof(n_neighbors=near, contamination="auto").fit_predict(own[:, None].numpy())
            assert found[b] == (labels == -1).sum() == greedy.local_outliers(own.tolist(), neighbours)
    assert found.sum() > 0
