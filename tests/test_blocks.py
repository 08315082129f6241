"""Blocks that end in any order, configs that change after apply_vtp, and how statistics show themselves."""

import copy

import pytest
import torch
from models import clip_vision, pixels, same, state
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, remove_vtp, vtp, vtp_stats
from hf_vtp.apply import OPEN, unpruned

pytestmark = pytest.mark.models
ENDS = "this vtp block ended before one that began inside it; end the blocks of a model in the opposite order"


def kept(model):
    """How many tokens a forward keeps; None of a model that is not pruned."""
    with torch.no_grad():
        model(pixels(1))
    return vtp_stats(model).num_kept[0] if "_vtp" in vars(model) else None


def end(block):
    block.__exit__(None, None, None)


@pytest.mark.parametrize("outer", [None, 0.75])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (1, 2, 0), (2, 0, 1)])
def test_blocks_that_end_out_of_order_say_so_and_leave_what_was_before(order, outer):
    model = clip_vision()
    model(pixels(1))
    if outer:
        apply_vtp(model, keep_ratio=outer)
    before, was = state(model), kept(model)
    blocks = [vtp(model, keep_ratio=ratio) for ratio in (0.5, 0.25, 0.1)]
    for block in blocks:
        block.__enter__()
    still = [0, 1, 2]
    for i in order:
        now = kept(model)
        if i == still[-1]:
            end(blocks[i])
        else:
            with pytest.raises(RuntimeError) as error:
                end(blocks[i])
            assert str(error.value).startswith(ENDS) and ". " not in str(error.value)
            assert kept(model) == now  # the innermost one still holds
        still.remove(i)
        if still and i == max([i, *still]):
            assert kept(model) == [18, 9, 4][still[-1]]
    assert kept(model) == was and state(model) == before and not len(OPEN)


def test_blocks_of_two_models_may_end_in_any_order():
    one, two = clip_vision(), clip_vision()
    first, second = vtp(one, keep_ratio=0.5), vtp(two, keep_ratio=0.25)
    first.__enter__(), second.__enter__()
    end(first)
    assert kept(one) is None and kept(two) == 9
    end(second)
    assert kept(two) is None


def test_a_block_ends_whatever_happened_inside():
    model = clip_vision()
    for action in (remove_vtp, lambda m: apply_vtp(m, keep_ratio=0.9), lambda m: unpruned(m).__enter__()):
        with vtp(model, keep_ratio=0.5):
            action(model)
        assert kept(model) is None
    with pytest.raises(KeyError), vtp(model, keep_ratio=0.5):
        raise KeyError
    with pytest.raises(ValueError), vtp(model, keep_ratio=2):
        pass
    assert kept(model) is None and not len(OPEN)


def changed(config, options):
    """Everything that can be changed in a config from outside, changed."""
    config.keep_ratio[-1] = 0.3
    config.layer[0] = 0
    config.method, config.min_keep, config.selector = "random", 30, "top_k"
    config.scorer_options["of"] = "nonsense"
    config.merger_options.clear()
    options["of"] = "k"


@pytest.mark.parametrize("through", ["config", "fields", "block"])
def test_what_changes_in_a_config_after_apply_has_no_effect(through):
    ratios, layers, options, merging = [0.7, 0.5], [1, 2], {"of": "q"}, {"lloyd": 1}
    fields = dict(keep_ratio=ratios, layer=layers, scorer="qk_norm")
    fields |= dict(scorer_options=options, merger_options=merging)
    config = VTPConfig(**fields)
    twin, model = clip_vision(), clip_vision()
    apply_vtp(twin, copy.deepcopy(config))
    if through == "fields":
        apply_vtp(model, **fields)
        ratios[-1], layers[0], options["of"] = 0.3, 0, "k"
        merging.clear()
    else:
        apply_vtp(model, config)
    own = vars(model)["_vtp"]
    for mine in (config, *([] if through == "config" else [VTPConfig(**fields)])):
        changed(mine, options)
    if through == "block":
        with vtp(model, keep_ratio=0.2):
            assert kept(model) == 7
    with torch.no_grad():
        assert same(model(pixels(2)), twin(pixels(2)))
    assert own.config == vars(twin)["_vtp"].config and own.config is not config
    assert model.config.vtp_config == twin.config.vtp_config
    apply_vtp(model, config.replace(scorer_options={}, keep_ratio=0.9, layer=0))
    assert kept(model) == 32  # a call takes what holds at its time


def test_a_config_shares_nothing_with_what_it_was_made_of():
    options = {"of": "q"}
    config = VTPConfig(scorer="qk_norm", scorer_options=options, keep_ratio=[0.7, 0.5], layer=[0, 1])
    other = config.replace(min_keep=2)
    options["of"], config.scorer_options["order"], config.layer[0] = "k", "smallest", 5
    assert other.scorer_options == {"of": "q"} and other.layer == [0, 1]
    assert config.scorer_options == {"of": "q", "order": "smallest"}


@pytest.mark.parametrize("method", ["vtp", "tome", "dynamic"])
def test_statistics_show_themselves_in_a_line_or_two(method):
    model = apply_vtp(clip_vision(layers=12), method=method, keep_ratio=0.4)
    model(pixels(7))
    stats = vtp_stats(model)
    for shown in (repr(stats), str(stats), f"{stats}", *map(repr, stats.stages)):
        assert len(shown.splitlines()) == 1 and len(shown) < 120 and "tensor" not in shown
    low, high = min(stats.num_kept), max(stats.num_kept)
    counts = str(low) if low == high else f"{low} to {high}"
    assert repr(stats).startswith(f"VTPStats(7 images: {counts} of 36 tokens stay; {len(stats.stages)} stage")
    assert "7 images: " in repr(stats.stages[-1]) and f"layer={stats.stages[-1].layer}" in repr(
        stats.stages[-1]
    )
    assert len(stats.keep_indices) == 7 and len(stats.stages[0].scores) == 7  # all of it is still there


@pytest.mark.parametrize(
    "layer, stages", [(1, "1 stage, after layer 1"), (None, "3 stages, after layer 0, 1, 2")]
)
def test_statistics_of_nothing_show_themselves(layer, stages):
    model = apply_vtp(Llava.model(), keep_ratio=0.5, layer=layer)
    model(**Llava.inputs((1, 2)))
    stats = vtp_stats(model)
    assert repr(stats) == f"VTPStats(3 images: 18 of 36 tokens stay; {stages})"
    assert "0 images" in repr(type(stats)([], [], [], [], []))
