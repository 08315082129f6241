"""torch.compile over CLIP towers: one graph, compiled once, right statistics, changes that take effect."""

import pytest
import torch
from models import clip, clip_vision, pixels, same

from hf_vtp import apply_vtp, list_methods, remove_vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models
STATIC = [
    name for name, row in list_methods().items() if row["keep_ratio"] == "exact" and row["models"] == "all"
]


@pytest.fixture(autouse=True)
def afresh():
    torch.compiler.reset()
    with torch.no_grad():
        yield
    torch.compiler.reset()


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def check_stats(found, expected):
    assert found.num_kept == expected.num_kept
    for stage, other in zip(found.stages, expected.stages, strict=True):
        for name in ("keep_indices", "assignment"):
            assert all(map(torch.equal, getattr(stage, name), getattr(other, name)))
        for name in ("sizes", "scores"):
            for x, y in zip(getattr(stage, name), getattr(other, name), strict=True):
                torch.testing.assert_close(x, y, **CLOSE)


@pytest.mark.parametrize("method", ["vtp", "qk_topk", "uniform", "tome", "visionzip", "hiprune", "scope"])
def test_one_graph_for_all_batches_of_a_shape(method):
    assert method in STATIC
    model = apply_vtp(clip_vision(), keep_ratio=0.4, layer=[0, 2], method=method)
    expected = {}
    for seed in (1, 5, 6):
        states = model(pixels(seed=seed)).last_hidden_state
        expected[seed] = states, vtp_stats(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(pixels())
    before = graphs()
    for seed, (states, stats) in expected.items():
        torch.testing.assert_close(compiled(pixels(seed=seed)).last_hidden_state, states, **CLOSE)
        check_stats(vtp_stats(compiled), stats)
    assert graphs() == before > 0


@pytest.mark.parametrize("fullgraph", [True, False])
def test_changes_reach_a_compiled_model(fullgraph):
    model = clip(
        "CLIPVisionModelWithProjection"
    )  # its tower is not the root, whose hooks torch.compile does see
    compiled = torch.compile(model, fullgraph=fullgraph, backend="eager")
    plain = compiled(pixels())
    for on, ratio, method in ((model, 0.5, "vtp"), (compiled, 0.25, "vtp"), (model, 0.25, "qk_topk")):
        apply_vtp(on, keep_ratio=ratio, method=method, layer=1)
        assert same(compiled(pixels()), model(pixels()))
        assert compiled(pixels()).last_hidden_state.shape[1] == 1 + round(36 * ratio)
    assert vtp_stats(compiled).num_kept == [9] * 3
    remove_vtp(compiled)
    assert same(compiled(pixels()), plain) and "_vtp" not in vars(model)
