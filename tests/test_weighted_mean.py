"""The merger of the default: groups become their weighted mean, at the mean length of their tokens."""

import pytest
import torch

from hf_vtp import VisionTokens
from hf_vtp.methods.mergers import MERGERS
from hf_vtp.methods.selectors import SELECTORS


def merge(states, groups=None, weights=None, keep=None, **fields):
    """States of one image [N, D], their groups and weights [N]; a group is kept by its first token."""
    if keep is None:
        keep = [groups.index(g) for g in range(max(groups) + 1)]
    tokens = VisionTokens(
        hidden_states=states[None],
        num_keep=len(keep),
        grid=(1, 1, len(states)),
        groups=None if groups is None else torch.tensor([groups]),
        group_weights=None if weights is None else torch.tensor([weights]),
        **fields,
    )
    return MERGERS["weighted_mean"].function(tokens, torch.tensor([keep]))


def test_a_mean_is_as_long_as_its_members():
    states = torch.tensor([[3.0, 0, 0], [0, 5.0, 0], [0, 0, 2.0]])
    merged, groups, sizes = merge(states, [0, 0, 1])
    expected = torch.tensor([3.0, 5, 0]) / 34**0.5 * 4  # the direction of the mean, the mean of the lengths
    torch.testing.assert_close(merged[0], torch.stack([expected, states[2]]))
    assert groups.tolist() == [[0, 0, 1]] and sizes.tolist() == [[2, 1]] and sizes.dtype == torch.float32


def test_weights_count_for_the_mean_and_sizes_for_the_size():
    states, sizes = torch.tensor([[1.0, 0], [0, 2.0], [3.0, 3.0]]), torch.tensor([[2.0, 5, 3]])
    merged, _, found = merge(states, [0, 0, 1], weights=[3.0, 1.0, 0.1], sizes=sizes)
    mean, length = torch.tensor([3.0, 2.0]) / 4, (3 * 1 + 1 * 2) / 4
    torch.testing.assert_close(merged[0, 0], mean / mean.norm() * length)
    torch.testing.assert_close(merged[0, 1], states[2])
    assert found.tolist() == [[7, 3]]
    merged, _, _ = merge(states, [0, 0, 1], sizes=sizes)  # no weights: sizes are
    mean, length = torch.tensor([2.0, 10.0]) / 7, (2 * 1 + 5 * 2) / 7
    torch.testing.assert_close(merged[0, 0], mean / mean.norm() * length)


def test_after_a_selector_without_groups_tokens_join_what_they_resemble():
    states = torch.tensor([[1.0, 0], [9.0, 1], [0, 1.0], [0.1, 7]])
    merged, groups, sizes = merge(states, keep=[0, 2])
    assert groups.tolist() == [[0, 0, 1, 1]] and sizes.tolist() == [[2, 2]]
    again, _, _ = merge(states, [0, 0, 1, 1])
    assert torch.equal(merged, again)


def test_each_patch_of_a_merge_unit_keeps_its_own_length():
    patches = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    merged, _, _ = merge(patches.mean(dim=1), [0, 1, 0, 0], patches=patches[None])
    for m in range(2):
        alone, _, _ = merge(patches[:, m], [0, 1, 0, 0])
        torch.testing.assert_close(merged.view(1, 2, 2, 3)[:, :, m], alone)


@pytest.mark.parametrize("content", ["random", "zeros", "opposites", "equal"])
def test_gradients_reach_every_member_and_are_finite(content):
    states = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    if content == "zeros":
        states[::2] = 0
    elif content == "opposites":
        states[1::2] = -states[::2]
    elif content == "equal":
        states[:] = states[0]
    states.requires_grad_()
    weights = None if content == "opposites" else [0.5 + i for i in range(12)]
    merged, _, _ = merge(states, [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 5], weights=weights)
    assert merged.isfinite().all()
    (gradient,) = torch.autograd.grad(merged.square().sum() + merged.sum(), states)
    assert gradient.isfinite().all()
    if content in ("random", "equal"):
        assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_is_made_in_float32_and_given_back_in_the_dtype_of_the_states(dtype):
    states = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    merged, _, sizes = merge(states, [0, 0, 0, 1, 1, 1, 2, 2])
    expected, _, _ = merge(states.float(), [0, 0, 0, 1, 1, 1, 2, 2])
    assert merged.dtype == dtype and sizes.dtype == torch.float32
    assert torch.equal(merged, expected.to(dtype))


def test_stage_after_stage_sizes_sum_to_all_tokens_and_lengths_stay():
    """What plain means lose at every stage: five of them leave vectors as long as those that entered."""
    g = torch.Generator().manual_seed(0)
    states = torch.nn.functional.normalize(torch.randn(2, 64, 48, generator=g), dim=-1) * 7
    tokens = VisionTokens(hidden_states=states, num_keep=64, grid=(1, 8, 8))
    for count in (50, 36, 25, 16, 9):
        now = VisionTokens(
            hidden_states=tokens.hidden_states, num_keep=count, grid=(1, 8, 8), sizes=tokens.sizes
        )
        choice = SELECTORS["ward"].function(torch.rand(now.shape, generator=g), now)
        now = VisionTokens(**{**vars(now), "groups": choice.groups, "group_weights": choice.weights})
        merged, groups, sizes = MERGERS["weighted_mean"].function(now, choice.keep)
        assert (sizes.sum(dim=1) == 64).all() and (sizes > 0).all() and groups.amax() == count - 1
        torch.testing.assert_close(merged.norm(dim=-1), torch.full((2, count), 7.0))
        tokens = VisionTokens(hidden_states=merged, num_keep=count, grid=(1, 8, 8), sizes=sizes)
