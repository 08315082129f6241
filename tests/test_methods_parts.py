"""Single scorers, selectors and helpers; test_methods_references holds all of them against plain loops."""

import torch

from hf_vtp import VisionTokens
from hf_vtp.methods.mergers.lloyd import lloyd
from hf_vtp.methods.scorers import SCORERS
from hf_vtp.methods.selectors import SELECTORS
from hf_vtp.pruning.grid import regular_grid
from hf_vtp.pruning.similarity import nearest
from hf_vtp.pruning.tokens import num_keep, row_blocks, take


def tokens_of(x, keep, **more):
    n = x.shape[1]
    key = torch.randn(x.shape[0], 2, n + 1, 4, generator=torch.Generator().manual_seed(7))
    fields = dict(grid=(1, 1, n), full_query=key.flip(-1), full_key=key, num_prefix_tokens=1)
    return VisionTokens(hidden_states=x, num_keep=keep, **{**fields, **more})


def test_row_blocks_change_nothing(monkeypatch):
    x = torch.randn(2, 33, 8, generator=torch.Generator().manual_seed(0))
    tokens, scores = tokens_of(x, 12), torch.randn(2, 33, generator=torch.Generator().manual_seed(1))
    whole = SELECTORS["nms"].function(scores, tokens, rounds=3)
    spread = SELECTORS["spread"].function(scores, tokens)
    merged = lloyd(tokens, whole, x[:, :12], rounds=2)
    monkeypatch.setattr("hf_vtp.pruning.tokens.BLOCK_ELEMENTS", 100)
    assert len(list(row_blocks(33, 33))) == 11
    assert torch.equal(SELECTORS["nms"].function(scores, tokens, rounds=3), whole)
    assert torch.equal(SELECTORS["spread"].function(scores, tokens), spread)
    for a, b in zip(lloyd(tokens, whole, x[:, :12], rounds=2), merged, strict=True):
        torch.testing.assert_close(a, b)


def test_top_k_breaks_ties_by_index():
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0, 2.0]])
    tokens = tokens_of(torch.zeros(1, 6, 2), 4)
    assert SELECTORS["top_k"].function(scores, tokens).tolist() == [[1, 2, 3, 4]]


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
