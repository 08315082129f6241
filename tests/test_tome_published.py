"""ToMe as published, a reference: the model itself where nothing merges, and right where it can be seen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from references import tome_published as tome
from transformers import ViTConfig, ViTForImageClassification


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=24, patch_size=4, num_labels=5)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(8)  # or attention is uniform, and a missing weight would not show
    return model


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_without_merging_it_is_the_model(vit, pixels):
    expected = vit(pixels, output_hidden_states=True)
    logits, pooled, sizes = tome.forward(vit, pixels, [0] * 4)
    assert (logits - expected.logits).abs().max() < 1e-6
    assert (pooled - vit.vit(pixels).last_hidden_state[:, 0]).abs().max() < 1e-6
    assert torch.equal(sizes, torch.ones(3, 37))


@pytest.mark.parametrize("schedule", [[5, 5, 5, 5], [0, 18, 0, 4], [40, 40, 40, 40]])
def test_each_layer_loses_r_tokens_at_most_half(vit, pixels, schedule):
    counts, x = [], vit.vit.embeddings(pixels)
    sizes = x.new_ones(x.shape[:2])
    for layer, r in zip(vit.vit.layers, schedule, strict=True):
        before = x.shape[1]
        x, sizes = tome.layer_forward(layer, x, sizes, r)
        counts.append(before - x.shape[1])
        assert counts[-1] == min(r, (before - 1) // 2)
        assert torch.allclose(sizes.sum(dim=1), torch.tensor(37.0)) and (sizes[:, 0] == 1).all()
    assert sum(counts) == 37 - x.shape[1]


def test_a_merge_by_hand():
    # places:          0 [CLS]    1        2         3        4        5
    metric = torch.tensor([[[1.0, 0], [0, 1.0], [0.1, 1], [1, 0.0], [1, 0.5], [1, 0.4]]])
    # A is 0, 2, 4, B is 1, 3, 5: 0 is like 3 but is [CLS]; 4 and 5 are the most similar, then 2 and 1
    x = torch.tensor([[[10.0], [1.0], [2.0], [3.0], [4.0], [7.0]]])
    sizes = torch.tensor([[1.0, 1, 3, 1, 1, 2]])
    merged, left = tome.merge(x, sizes, tome.plan(metric, 1))
    assert merged.squeeze(-1).tolist() == [[10.0, 2.0, 1.0, 3.0, 6.0]] and left.tolist() == [[1, 3, 1, 1, 3]]
    merged, left = tome.merge(x, sizes, tome.plan(metric, 2))
    assert merged.squeeze(-1).tolist() == [[10.0, 1.75, 3.0, 6.0]] and left.tolist() == [[1, 4, 1, 3]]


def test_merging_keeps_the_sum_over_patches_and_the_image_of_any_linear_map():
    generator = torch.Generator().manual_seed(2)
    x, metric = torch.randn(2, 38, 6, generator=generator), torch.randn(2, 38, 4, generator=generator)
    sizes, weight = torch.ones(2, 38), torch.randn(6, 3, generator=generator)
    patches = x @ weight
    while x.shape[1] > 3:
        chosen = tome.plan(metric, tome.bounded(7, x.shape[1]))
        metric, _ = tome.merge(metric, sizes, chosen)
        x, sizes = tome.merge(x, sizes, chosen)
        assert torch.allclose((sizes.unsqueeze(-1) * (x @ weight)).sum(dim=1), patches.sum(dim=1), atol=1e-4)
        assert sizes.sum(dim=1).tolist() == [38, 38]


def test_proportional_attention_is_that_of_as_many_equal_tokens(vit):
    attention, x = (
        vit.vit.layers[0].attention,
        torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(3)),
    )
    output, _ = tome.attend(attention, x, torch.tensor([[1.0, 3.0, 2.0]]))
    repeated = x[:, [0, 1, 1, 1, 2, 2]]
    expected, _ = tome.attend(attention, repeated, torch.ones(1, 6))
    assert torch.allclose(output, expected[:, [0, 1, 4]], atol=1e-6)


def test_layers_take_turns_between_neighbouring_r():
    assert tome.taking_turns(12, 4) == [3, 3, 3, 3]
    assert tome.taking_turns(10, 4) == [2, 3, 2, 3] and tome.taking_turns(3, 4) == [0, 1, 1, 1]
    assert all(sum(tome.taking_turns(n, 12)) == n for n in range(200))


GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "tome.npz"


@pytest.mark.skipif(not GOLDEN.is_file(), reason=f"{GOLDEN} is not there")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", [0, 1])
def test_two_rounds_give_what_the_authors_code_gave(seed, case):
    with np.load(GOLDEN, allow_pickle=False) as file:
        own = {name: torch.from_numpy(file[f"seed{seed}/{name}"]) for name in ("k", "hidden")}
        expected = {
            name.split("/")[-1]: file[name] for name in file.files if f"seed{seed}/case{case}/" in name
        }
    x, metric = own["hidden"], own["k"].mean(dim=1)
    sizes, r = torch.ones(x.shape[:2]), 64 - expected["values_cls_1"].shape[1]
    for number in (1, 2):
        x, sizes = tome.merge(x, sizes, tome.plan(metric, r))
        metric = x
        np.testing.assert_allclose(x[:, 1:], expected[f"values_cls_{number}"], atol=1e-6)
        np.testing.assert_array_equal(sizes[:, 1:], expected[f"sizes_cls_{number}"])
