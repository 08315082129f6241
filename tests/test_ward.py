"""Ward's clustering against a plain loop and scipy's, however it runs."""

import itertools

import numpy as np
import pytest
import torch
from references.ward import partition

from hf_vtp.pruning import ward as clustering
from hf_vtp.pruning.ward import max_rounds, ward


def serial(x, weights, count):
    """The leader of each point, [N], by the loop that always makes the cheapest merge; in float64."""
    x, weights = x.double().numpy().copy(), weights.double().numpy().copy()
    leader, live = np.arange(len(x)), list(range(len(x)))
    while len(live) > count:
        centres, w = x[live], weights[live]
        squares = ((centres[:, None] - centres) ** 2).sum(-1)
        costs = squares / (1 / w[:, None] + 1 / w)
        np.fill_diagonal(costs, np.inf)
        i, j = (live[k] for k in np.unravel_index(costs.argmin(), costs.shape))
        stays, goes = (i, j) if weights[i] >= weights[j] else (j, i)
        total = weights[i] + weights[j]
        x[stays] = (weights[i] * x[i] + weights[j] * x[j]) / total
        weights[stays] = total
        leader[leader == goes] = stays
        live.remove(goes)
    return leader.tolist()


def alike(n, d=12, b=2, seed=0):
    """Random points, and weights none of which are equal."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b, n, d, generator=g), torch.rand(b, n, generator=g) ** 2 + 0.01


def clustered(n, d=12, b=2, seed=0, clusters=7):
    """Points about a few centres far from the origin, as tokens are: all have much in common."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(b, clusters, d, generator=g) + 5
    own = torch.randint(0, clusters, (b, n), generator=g)
    x = centres.gather(1, own.unsqueeze(-1).expand(-1, -1, d)) + 0.1 * torch.randn(b, n, d, generator=g)
    return x, torch.rand(b, n, generator=g) ** 2 + 0.01


POINTS = {"random": alike, "clustered": clustered}


@pytest.fixture(params=["as on a CPU", "a fixed number of rounds"])
def mode(request, monkeypatch):
    """The loop that asks whether it is done, or the one of a device and of a compiled graph."""
    if request.param != "as on a CPU":
        monkeypatch.setattr(clustering, "may_wait", lambda x: False)
    return request.param


@pytest.mark.parametrize("points", POINTS)
@pytest.mark.parametrize("n", [2, 13, 60])
def test_rounds_make_the_merges_of_the_serial_loop(points, n, mode):
    x, weights = POINTS[points](n)
    for count in sorted({1, 2, n // 6 or 1, n // 2, n - 1, n}):
        found = ward(x, weights, count)
        assert found.dtype == torch.int64
        assert found.tolist() == [serial(*own, count) for own in zip(x, weights, strict=True)]


@pytest.mark.parametrize("points", POINTS)
def test_equal_weights_give_the_groups_of_scipy(points, mode):
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    x, _ = POINTS[points](150, seed=1)
    trees = [hierarchy.linkage(own.double().numpy(), "ward") for own in x]
    for count in (1, 2, 7, 40, 75, 149):
        found = ward(x, torch.full(x.shape[:2], 0.37), count)
        for own, tree in zip(found.tolist(), trees, strict=True):
            assert partition(own) == partition(hierarchy.fcluster(tree, count, "maxclust").tolist())


def test_an_image_does_not_depend_on_its_neighbours(mode):
    x, weights = alike(40, b=4)
    x[1] = x[1, :1]  # equal points, which take more rounds than the others
    for count in (3, 20):
        together = ward(x, weights, count)
        for b in range(4):
            assert torch.equal(together[b : b + 1], ward(x[b : b + 1], weights[b : b + 1], count))


def test_a_group_goes_by_its_heaviest_part():
    x = torch.tensor([[[0.0], [0.1], [5.0], [5.1], [9.0]]])
    weights = torch.tensor([[1.0, 2.0, 3.0, 1.0, 0.5]])
    assert ward(x, weights, 3).tolist() == [[1, 1, 2, 2, 4]]
    # 4 is light, and so its merge is cheaper than that of 0 and 2, which are nearer
    assert ward(x, weights, 2).tolist() == [[1, 1, 2, 2, 2]]
    assert ward(x, torch.ones(1, 5), 3).tolist() == [[0, 0, 2, 2, 4]]


def exactly(leader, count):
    """Whether there are `count` groups, each of which holds the token that it goes by."""
    return all(len(set(own)) == count and all(own[i] == i for i in set(own)) for own in leader.tolist())


def chain(n):
    """Points each nearer to the next than to the one before: one pair merges in a round."""
    x = torch.cumsum(0.9 ** torch.arange(n, dtype=torch.float64), dim=0).float()
    return x[None, :, None], torch.ones(1, n)


HARD = {
    "equal points": lambda n: (torch.full((2, n, 3), 0.7), torch.ones(2, n)),
    "equal points of other weights": lambda n: (torch.full((2, n, 3), 0.7), alike(n)[1]),
    "a chain": chain,
    "two values": lambda n: (torch.arange(n).fmod(2).float()[None, :, None], torch.ones(1, n)),
}


@pytest.mark.parametrize("points", HARD)
@pytest.mark.parametrize("n, count", [(200, 1), (200, 2), (200, 60), (200, 199), (60, 30)])
def test_there_are_always_as_many_groups_as_asked_for(points, n, count, mode):
    x, weights = HARD[points](n)
    assert exactly(ward(x, weights, count), count)


def test_too_many_groups_are_dissolved_from_the_lightest(mode, monkeypatch):
    """With no rounds at all every token is a group: the heaviest stay, the others join what is nearest."""
    monkeypatch.setattr(clustering, "max_rounds", lambda *_: 0)
    x = torch.tensor([[[0.0], [1.0], [2.0], [10.0], [11.0]]])
    assert ward(x, torch.tensor([[1.0, 5.0, 2.0, 3.0, 4.0]]), 2).tolist() == [[1, 1, 1, 4, 4]]
    assert ward(x, torch.ones(1, 5), 2).tolist() == [[0, 1, 1, 1, 1]]


def test_as_many_rounds_as_there_may_be_are_enough_for_random_points():
    """Or the tests above would compare what `enough` made of it."""
    x, weights = alike(300, b=4)
    for count in (10, 150):
        distances = clustering.squared_distances(x)
        parent, height = clustering.merges(distances, weights, None, 300 - count, 1)
        found = height.sort(dim=1).values[:, 299 - count]  # the costliest of the merges that are needed
        assert found.isfinite().all() and max_rounds(300, count) < 300 - count
        assert ((parent != torch.arange(300)) == height.isfinite()).all()


@pytest.fixture
def windows_of_16(monkeypatch):
    monkeypatch.setattr(clustering, "WINDOW", 16)


@pytest.mark.parametrize("n", [33, 48, 50])
def test_only_groups_of_one_window_merge(n, windows_of_16, mode):
    """With as many merges as one of all cheapest merges needs, and none across windows."""
    x, weights = alike(n, seed=n)
    order = torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(b)) for b in range(2)])
    windows = -(-n // 16)
    length = -(-n // windows)
    for count in (windows, 10, n // 2, n - 1):
        found = ward(x, weights, count, order)
        assert exactly(found, count)
        for b in range(2):
            window = torch.empty(n, dtype=torch.int64).scatter(0, order[b], torch.arange(n) // length)
            assert torch.equal(window[found[b]], window)
            assert found[b].tolist() == in_windows(x[b], weights[b], window, count)
            alone = ward(x[b : b + 1], weights[b : b + 1], count, order[b : b + 1])
            assert torch.equal(alone[0], found[b])


def in_windows(x, weights, window, count):
    """The serial loop among points whose windows are far apart in a further dimension."""
    far = 1e4 * window.double()[:, None]
    return serial(torch.cat([x.double(), far], dim=1), weights, count)


def test_fewer_groups_than_windows_are_made_all_the_same(windows_of_16, mode):
    x, weights = alike(50)
    order = torch.arange(50).expand(2, -1)
    for count in (1, 3):
        assert exactly(ward(x, weights, count, order), count)


class Shapes(torch.utils._python_dispatch.TorchDispatchMode):
    """Finds the largest tensor that an operation makes."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(result):
            if isinstance(x, torch.Tensor):
                held = x.untyped_storage().nbytes()  # an expanded view holds less than its shape says
                self.largest = max(self.largest, held)
        return result


def test_no_temporary_has_the_size_of_all_pairs_times_channels(mode):
    x, weights = alike(128, d=64)
    with Shapes() as shapes:
        ward(x, weights, 60)
    assert 2 * 128**2 * 4 <= shapes.largest <= 2 * 128**2 * 8


def test_it_compiles_to_one_graph_with_the_same_groups():
    torch.compiler.reset()
    x, weights = alike(60)
    compiled = torch.compile(ward, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, weights, 20), ward(x, weights, 20))
    torch.compiler.reset()


def test_on_a_device_nothing_waits(monkeypatch):
    """A tensor on the meta device has no values that could be asked for."""
    x, weights = (t.to("meta") for t in alike(60))
    for order in (None, torch.arange(60, device="meta").expand(2, 60)):
        found = ward(x, weights, 20, order)
        assert found.shape == (2, 60) and found.is_meta
        monkeypatch.setattr(clustering, "WINDOW", 16)


def test_the_order_of_tokens_decides_nothing_but_names():
    x, weights = alike(25)
    turn = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    whole = ward(x, weights, 9)
    turned = ward(x[:, turn], weights[:, turn], 9)
    assert torch.equal(turn[turned], whole[:, turn])


def test_the_error_is_that_of_no_better_pair():
    """Of all ways to merge two of five points, the cheapest by its definition."""
    x, weights = alike(5, d=2, b=30)
    found = ward(x, weights, 4)
    for points, w, leader in zip(x.double(), weights.double(), found, strict=True):
        errors = {}
        for pair in itertools.combinations(range(5), 2):
            rows, own = points[list(pair)], w[list(pair)]
            mean = (own[:, None] * rows).sum(0) / own.sum()
            errors[pair] = float((own * ((rows - mean) ** 2).sum(1)).sum())
        merged = next(group for group in partition(leader.tolist()) if len(group) == 2)
        assert tuple(merged) == min(errors, key=errors.get)
