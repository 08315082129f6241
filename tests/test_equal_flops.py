"""The keep_ratio for a share of FLOPs, counted again on the pruned model; shares that are out of reach."""

import pytest
import torch
from models import sharpen
from transformers import ViTConfig, ViTForImageClassification

from hf_vtp import VTPConfig, vtp
from hf_vtp.tools.bench.flops import count_flops
from hf_vtp.tools.evaluation.equal_flops import TOLERANCE, FlopShares, solve, solve_ratio

pytestmark = pytest.mark.models
SIDE = 48  # pixels: 12 × 12 patches, or whole numbers of tokens would be too coarse
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
VIT = dict(**SIZES, image_size=SIDE, patch_size=4)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = sharpen(ViTForImageClassification(ViTConfig(**VIT, num_labels=8))).eval()
    with torch.no_grad():
        for layer in (m for m in model.vit.modules() if isinstance(m, torch.nn.Linear)):
            layer.weight.mul_(4)  # or all images would look alike to a method whose count follows them
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return model, [lambda image=image: model(image[None]) for image in pixels]


@torch.no_grad()
@pytest.mark.parametrize(
    ("method", "layer", "wanted"),
    [("vtp", None, 0.75), ("vtp", [0, 2], 0.5), ("tome", None, 0.8), ("divprune", [0, 2], 0.75)],
)
def test_a_solved_ratio_costs_the_share_that_was_asked_for(tiny, method, layer, wanted):
    model, forwards = tiny
    config = VTPConfig(method=method, layer=layer)
    whole, solved = count_flops(forwards[0]), solve(config, wanted, FlopShares(model, forwards))
    with vtp(model, config.replace(keep_ratio=solved.keep_ratio)):
        assert count_flops(forwards[0]) / whole == solved.share
    assert solved.problem == "" and abs(solved.share - wanted) <= TOLERANCE
    assert count_flops(forwards[0]) == whole  # nothing stays on the model


@torch.no_grad()
def test_a_share_out_of_reach_is_the_nearest_with_its_reason(tiny):
    shares = FlopShares(*tiny)
    late = solve(VTPConfig(layer=2), 0.3, shares)
    assert (
        late.share > 0.7 and late.problem == f"its least FLOPs are {late.share:.3f} of the unpruned tower's"
    )
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            solve(VTPConfig(), share, shares)


def test_the_nearest_of_whole_numbers_of_tokens_is_found():
    def steps(ratio):
        return round(10 * ratio) / 10

    for wanted in (0.11, 0.34, 0.58, 0.97):
        solved = solve_ratio(steps, wanted)
        assert solved.share == steps(solved.keep_ratio) == round(wanted, 1)
        assert (
            solved.problem == f"the nearest that it comes is {solved.share:.3f} of the unpruned tower's FLOPs"
        )
    tried = []
    fine = solve_ratio(lambda ratio: tried.append(ratio) or 0.2 + 0.8 * ratio, 0.6)
    assert fine.problem == "" and fine.keep_ratio == pytest.approx(0.5, abs=1e-3) and len(tried) < 8
    unused = solve_ratio(lambda ratio: 1.0 if ratio == 1 else 0.4, 0.6)
    assert unused.share == 0.4 and "0.400" in unused.problem


def test_counts_that_follow_the_image_are_solved_for_their_mean(tiny):
    model, forwards = tiny
    shares, config = FlopShares(model, forwards), VTPConfig(method="dynamic", keep_ratio=0.5)
    with torch.no_grad(), vtp(model, config):
        counts = [count_flops(forward) for forward in forwards]
    with torch.no_grad():
        assert counts[0] != counts[1]
        assert shares(config) == pytest.approx(sum(counts) / 2 / count_flops(forwards[0]))
