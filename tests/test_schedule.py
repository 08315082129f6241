"""Where tokens leave by default, how several layers share one ratio, and a share of the work as the wish."""

import pytest
import torch
from models import clip_vision, pixels

from hf_vtp import VTPConfig, apply_vtp, vtp_stats
from hf_vtp.methods.layers import SCHEDULES, default_layers
from hf_vtp.schedule import shares, work


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6, 12, 23, 24, 27, 32, 48])
def test_default_layers_are_the_same_share_of_every_depth(depth):
    layers = default_layers(depth)
    assert layers == sorted(set(layers)) and 1 <= len(layers) <= 5
    assert 0 <= layers[0] and layers[-1] < depth
    if depth >= 12:
        assert len(layers) == 5
        assert (
            abs(layers[0] / depth - 2.5 / 12) <= 1 / depth and abs(layers[-1] / depth - 8.5 / 12) <= 1 / depth
        )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.7, 0.95, 1.0])
def test_shares_fall_to_the_ratio(schedule, ratio):
    found = shares(ratio, 5, schedule)
    assert found[-1] == ratio and all(1 >= a >= b for a, b in zip(found, found[1:], strict=False))


def test_late_keeps_more_in_front_the_milder_the_ratio():
    for ratio in (0.1, 0.5, 0.9):
        late, geometric = shares(ratio, 4, "late"), shares(ratio, 4, "geometric")
        assert all(a > b for a, b in zip(late[:-1], geometric[:-1], strict=True))
    by_ratio = [torch.tensor(shares(r, 4, "late")[0]).log() / torch.tensor(r).log() for r in (0.1, 0.5, 0.9)]
    assert by_ratio[0] > by_ratio[1] > by_ratio[2]


@pytest.mark.parametrize("flops", [0.95, 0.75, 0.6, 0.45])
@pytest.mark.parametrize("method", ["vtp", "random", "qk_topk"])
def test_flops_solves_for_the_ratio(flops, method):
    stages = VTPConfig(flops=flops, method=method).stages(12)
    layers, ratios = zip(*stages, strict=True)
    assert work(list(layers), list(ratios), 12) == pytest.approx(flops, abs=1e-6)


def test_flops_counts_tokens_of_all_layers_that_a_model_runs():
    model = clip_vision(layers=6)
    apply_vtp(model, flops=0.6)
    with torch.no_grad():
        model(pixel_values=pixels(1))
    stats, entering = vtp_stats(model), []
    for layer in range(6):
        before = [stage for stage in stats.stages if stage.layer < layer]
        entering.append(len(before[-1].keep_indices[0]) if before else stats.num_tokens[0])
    assert sum(entering) / (6 * stats.num_tokens[0]) == pytest.approx(0.6, abs=0.02)


def test_flops_of_one_leaves_all():
    assert all(ratio == 1 for _, ratio in VTPConfig(flops=1.0).stages(12))


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"flops": 0.0}, ValueError, "flops must lie in"),
        ({"flops": 1.5}, ValueError, "flops must lie in"),
        ({"flops": "half"}, TypeError, "flops must be a number or None"),
        ({"flops": 0.5, "keep_ratio": 0.5}, ValueError, "not both"),
    ],
)
def test_other_flops_are_refused(fields, error, words):
    with pytest.raises(error, match=words):
        VTPConfig(**fields)


@pytest.mark.parametrize("fields", [{"flops": 0.2}, {"flops": 0.5, "layer": "output"}])
def test_flops_that_no_ratio_reaches_are_refused(fields):
    with pytest.raises(ValueError, match="choose more than"):
        VTPConfig(**fields).stages(12)


def test_flops_survives_the_way_through_a_file(tmp_path):
    VTPConfig(flops=0.6).save_pretrained(tmp_path)
    assert VTPConfig.from_pretrained(tmp_path).flops == 0.6
