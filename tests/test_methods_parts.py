"""Scorers, selectors and mergers against references written as plain loops in float64."""

import pytest
import torch
from oracles import nms_absorb

from hf_vtp import VisionTokens
from hf_vtp.mergers import MERGERS
from hf_vtp.mergers.lloyd import lloyd
from hf_vtp.scorers import SCORERS
from hf_vtp.scorers.uniform import regular_grid
from hf_vtp.selectors import SELECTORS
from hf_vtp.similarity import nearest
from hf_vtp.tokens import num_keep, row_blocks, take

CASES = {
    "random": lambda g: torch.randn(3, 17, 8, generator=g),
    "all equal": lambda g: torch.ones(2, 9, 8),
    "one outlier": lambda g: torch.cat([torch.ones(2, 8, 8), torch.full((2, 1, 8), -50.0)], dim=1),
    "one token": lambda g: torch.randn(2, 1, 8, generator=g),
    "zeros": lambda g: torch.zeros(2, 5, 8),
}


def tokens_of(x, keep, **more):
    n = x.shape[1]
    key = torch.randn(x.shape[0], 2, n + 1, 4, generator=torch.Generator().manual_seed(7))
    fields = dict(grid=(1, 1, n), full_query=key.flip(-1), full_key=key, num_prefix_tokens=1)
    return VisionTokens(hidden_states=x, num_keep=keep, **{**fields, **more})


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_nms_and_absorb_are_their_plain_loops(case, rounds):
    g = torch.Generator().manual_seed(0)
    x = CASES[case](g)
    b, n, _ = x.shape
    for keep in sorted({1, (n + 1) // 2, n}):
        for scores in (torch.randn(b, n, generator=g), torch.zeros(b, n)):
            sizes = torch.randint(1, 4, (b, n), generator=g).float()
            tokens = tokens_of(x, keep, sizes=sizes)
            chosen = SELECTORS["nms"].function(scores, tokens, rounds=rounds)
            merged, groups, totals = MERGERS["absorb"].function(tokens, chosen)
            for i in range(b):
                expected = nms_absorb(x[i], scores[i], keep, rounds, sizes[i])
                assert chosen[i].tolist() == expected[0]
                assert groups[i].tolist() == expected[1]
                torch.testing.assert_close(totals[i].double(), expected[2])
                torch.testing.assert_close(merged[i].double(), expected[3], atol=1e-5, rtol=1e-5)


def test_row_blocks_change_nothing(monkeypatch):
    x = torch.randn(2, 33, 8, generator=torch.Generator().manual_seed(0))
    tokens, scores = tokens_of(x, 12), torch.randn(2, 33, generator=torch.Generator().manual_seed(1))
    whole = SELECTORS["nms"].function(scores, tokens, rounds=3)
    merged = lloyd(tokens, whole, x[:, :12], rounds=2)
    monkeypatch.setattr("hf_vtp.tokens.BLOCK_ELEMENTS", 100)
    assert len(list(row_blocks(33, 33))) == 11
    assert torch.equal(SELECTORS["nms"].function(scores, tokens, rounds=3), whole)
    for a, b in zip(lloyd(tokens, whole, x[:, :12], rounds=2), merged, strict=True):
        torch.testing.assert_close(a, b)


def test_top_k_breaks_ties_by_index():
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0, 2.0]])
    tokens = tokens_of(torch.zeros(1, 6, 2), 4)
    assert SELECTORS["top_k"].function(scores, tokens).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("of", ["k", "q", "qk"])
@pytest.mark.parametrize("order", ["largest", "smallest"])
def test_qk_norm_is_the_mean_over_heads_of_the_l2_norm(of, order):
    tokens = tokens_of(torch.zeros(2, 5, 8), 2)
    scores = SCORERS["qk_norm"].function(tokens, of=of, order=order)
    for b in range(2):
        for n in range(5):
            total = 0.0
            for states in {"k": [tokens.full_key], "q": [tokens.full_query]}.get(
                of, [tokens.full_key, tokens.full_query]
            ):
                total += sum(sum(float(v) ** 2 for v in states[b, h, n + 1]) ** 0.5 for h in range(2)) / 2
            assert abs(float(scores[b, n]) - (total if order == "largest" else -total)) < 1e-5


def test_token_norm():
    x = torch.randn(2, 5, 8)
    expected = x.double().square().sum(-1).sqrt()
    scores = SCORERS["token_norm"].function(tokens_of(x, 2))
    torch.testing.assert_close(scores.double(), expected)
    assert torch.equal(SCORERS["token_norm"].function(tokens_of(x, 2), order="smallest"), -scores)


def test_uniform_is_a_regular_grid():
    assert regular_grid(4, 4, 4).tolist() == [5, 7, 13, 15]
    for rows in range(1, 13):
        for columns in range(1, 13):
            for count in range(1, rows * columns + 1):
                grid = regular_grid(rows, columns, count)
                assert len(grid) == count and grid.min() >= 0 and grid.max() < rows * columns
                assert (grid.diff() > 0).all()


def test_uniform_covers_better_than_chance():
    cells = torch.cartesian_prod(torch.arange(14.0), torch.arange(14.0))
    for count in (4, 16, 49, 98):
        grid = torch.cdist(cells, cells[regular_grid(14, 14, count)]).amin(1).mean()
        drawn = [
            torch.cdist(cells, cells[torch.randperm(196, generator=torch.Generator().manual_seed(s))[:count]])
            for s in range(9)
        ]
        assert grid < torch.stack([d.amin(1).mean() for d in drawn]).min()


def test_random_is_uniform_and_follows_layer_and_seed():
    tokens = tokens_of(torch.zeros(2, 4096, 1), 5)
    scores = SCORERS["random"].function(tokens)
    assert torch.equal(scores[0], scores[1])  # a row does not depend on its place in the batch
    share = scores[0] / 2**24
    assert abs(share.mean() - 0.5) < 0.02 and abs(share.std() - 12**-0.5) < 0.02
    others = [
        SCORERS["random"].function(tokens, seed=1),
        SCORERS["random"].function(tokens_of(torch.zeros(1, 4096, 1), 5, layer=1)),
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack([scores[0], other[0]]))[0, 1]) < 0.05


def test_take_and_nearest():
    x = torch.randn(2, 6, 3)
    index = torch.tensor([[0, 5], [2, 3]])
    assert torch.equal(take(x, index)[1, 1], x[1, 3]) and torch.equal(
        take(x[..., 0], index)[0], x[0, [0, 5], 0]
    )
    assert nearest(torch.ones(1, 3, 2), torch.ones(1, 4, 2)).tolist() == [[0, 0, 0]]


def test_num_keep():
    assert [num_keep(196, r) for r in (0.7, 0.5, 0.001, 1.0)] == [137, 98, 1, 196]
    assert num_keep(10, 0.5, min_keep=7) == 7 and num_keep(10, 0.5, max_keep=2) == 2
    assert num_keep(3, 0.5, min_keep=7) == 3
