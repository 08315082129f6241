"""The selector of the default: what tokens weigh, which merge later, and large images in windows."""

import pytest
import torch
from references.ward import partition

from hf_vtp import VisionTokens
from hf_vtp.methods.selectors import SELECTORS
from hf_vtp.methods.selectors import ward as page
from hf_vtp.pruning import ward as clustering
from hf_vtp.tools.bench.memory import peak_bytes


@pytest.fixture(params=["as on a CPU", "a fixed number of rounds"])
def mode(request, monkeypatch):
    """The loop that asks whether it is done, or the one of a device and of a compiled graph."""
    if request.param != "as on a CPU":
        monkeypatch.setattr(clustering, "may_wait", lambda x: False)


def tokens_of(grid, count):
    states = torch.randn(2, grid[0] * grid[1] * grid[2], 12, generator=torch.Generator().manual_seed(0))
    return VisionTokens(hidden_states=states, num_keep=count, grid=grid)


def test_neighbours_along_the_curve_are_neighbours_in_the_image():
    order = page.z_order(tokens_of((1, 4, 4), 8))
    assert order[0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    order = page.z_order(tokens_of((2, 2, 2), 4))  # frames too
    assert order[0].tolist() == list(range(8))
    for grid in ((3, 5, 7), (1, 1, 9), (1, 40, 30)):
        order = page.z_order(tokens_of(grid, 4))
        assert order.sort(dim=1).values.tolist() == [list(range(order.shape[1]))] * 2
    at = torch.tensor([[0, 2, 3, 9, 15], [1, 2, 4, 5, 8]])  # some have left
    some = VisionTokens(hidden_states=torch.zeros(2, 5, 3), num_keep=2, grid=(1, 4, 4), positions=at)
    assert at.gather(1, page.z_order(some)).tolist() == [[0, 2, 3, 9, 15], [1, 4, 5, 2, 8]]


@pytest.fixture
def windows_of_16(monkeypatch):
    monkeypatch.setattr(clustering, "WINDOW", 16)
    monkeypatch.setattr(page, "WINDOW", 16)


def select(scores, tokens):
    chosen = SELECTORS["ward"].function(scores, tokens)
    return chosen.keep, chosen.groups, chosen.weights


def test_important_tokens_merge_later():
    """Pairs at one distance: those merge first that the scorer pays no attention."""
    pairs = torch.tensor([0.0, 1, 10, 11, 20, 21, 30, 31])[None, :, None]
    tokens = VisionTokens(hidden_states=pairs, num_keep=6, grid=(1, 2, 4))
    scores = torch.tensor([[0.4, 0.4, 0.1, 0.1, 0.3, 0.3, 0.2, 0.2]])
    keep, groups, _ = select(scores, tokens)
    assert keep.tolist() == [[0, 1, 2, 4, 5, 6]] and groups.tolist() == [[0, 1, 2, 2, 3, 4, 5, 5]]


def test_a_weight_is_the_size_times_the_root_of_the_score():
    sizes = torch.tensor([[1.0, 2, 3, 1], [1, 1, 1, 1]])
    tokens = VisionTokens(hidden_states=torch.randn(2, 4, 3), num_keep=2, grid=(1, 2, 2), sizes=sizes)
    scores = torch.tensor([[0.04, 0.09, 0.01, -1.0], [-3.0, -1.0, 0.0, -2.0]])
    weights = select(scores, tokens)[2]
    expected = torch.tensor([0.2, 0.6, 0.3, (0.14 / 4 * 1e-3) ** 0.5])  # none is without weight
    torch.testing.assert_close(weights[0], expected / expected.mean())
    torch.testing.assert_close(weights[1], torch.ones(4))  # no score is above 0: all count alike


@pytest.mark.parametrize("score", [-2.5, 0.0, 1e-30, 7.0])
def test_scores_that_say_nothing_leave_scipys_groups(score, mode):
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    tokens = tokens_of((1, 6, 5), 9)
    keep, groups, weights = select(torch.full((2, 30), score), tokens)
    assert weights.isfinite().all() and (weights > 0).all()
    for b in range(2):
        tree = hierarchy.linkage(tokens.hidden_states[b].double().numpy(), "ward")
        assert partition(groups[b].tolist()) == partition(hierarchy.fcluster(tree, 9, "maxclust").tolist())
        assert groups[b, keep[b]].tolist() == list(range(9))


def test_the_selector_cuts_large_images_into_windows_of_neighbours(windows_of_16):
    tokens = tokens_of((1, 8, 8), 20)
    keep, groups, _ = select(torch.rand(2, 64), tokens)
    quarter = torch.arange(64) // 32 * 2 + torch.arange(64) % 8 // 4
    for b in range(2):
        assert torch.equal(quarter[keep[b, groups[b]]], quarter)
    assert (keep.diff(dim=1) > 0).all()


@pytest.mark.parametrize("waits, width, count", [(True, 768, 16000), (False, 64, 8192)])
def test_scratch_for_16384_tokens_is_at_most_256_mib(waits, width, count, monkeypatch):
    """On a CPU the first rounds need most, on a device all the same: three of them show it."""
    monkeypatch.setattr(clustering, "may_wait", lambda x: waits)
    monkeypatch.setattr(clustering, "max_rounds", lambda *_: 3)
    states = torch.randn(1, 16384, width, generator=torch.Generator().manual_seed(0))
    tokens = VisionTokens(hidden_states=states, num_keep=count, grid=(1, 128, 128))
    needed = peak_bytes(lambda: select(torch.rand(1, 16384), tokens), torch.device("cpu"))
    assert 2**26 < needed <= 2**28
