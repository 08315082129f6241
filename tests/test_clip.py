"""CLIP against the contract: bit-equal at 1.0, exact undo, pruned == masked, absorbed == replicated."""

import copy

import pytest
import torch
from models import (
    CLIP_CLASSES,
    IMAGE_METHODS,
    clip,
    clip_inputs,
    clip_vision,
    pixels,
    same,
    state,
    vision_config,
)
from oracles import masked_clip, replicated_clip
from transformers import CLIPVisionModel

import hf_vtp
from hf_vtp import apply_vtp, remove_vtp, vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("method", IMAGE_METHODS)
@pytest.mark.parametrize("name", CLIP_CLASSES)
def test_ratio_one_is_bit_equal(name, method):
    model, inputs = clip(name), clip_inputs(name)
    plain = model(**inputs, output_hidden_states=True)
    apply_vtp(model, keep_ratio=1.0, method=method, layer=[0, 2])
    assert same(plain, model(**inputs, output_hidden_states=True))
    assert vtp_stats(model).num_kept == [36, 36, 36]


@pytest.mark.parametrize("whole", [{"keep_ratio": 1.0}, {"flops": 1.0}], ids=repr)
@pytest.mark.parametrize("name", CLIP_CLASSES)
def test_all_of_it_by_default_is_bit_equal(name, whole):
    model, inputs = clip(name), clip_inputs(name)
    plain = model(**inputs, output_hidden_states=True)
    apply_vtp(model, **whole)
    assert same(plain, model(**inputs, output_hidden_states=True))
    assert [stage.layer for stage in vtp_stats(model).stages] == [0, 1, 2]


@pytest.mark.parametrize("name", CLIP_CLASSES)
@pytest.mark.parametrize("capture", [False, True])
def test_removed_is_never_applied(name, capture):
    model, twin, inputs = clip(name), clip(name), clip_inputs(name)
    config = model.config
    model(**inputs, output_hidden_states=capture)
    apply_vtp(model, keep_ratio=0.5, layer=[0, 2])
    pruned = model(**inputs, output_hidden_states=capture)
    remove_vtp(model)
    for _ in range(2):
        plain = twin(**inputs, output_hidden_states=capture)
    assert not same(pruned, plain)
    assert state(model) == state(twin) and model.config is config
    assert same(model(**inputs, output_hidden_states=capture), plain)


def test_undo_after_an_exception_in_the_middle_of_a_forward():
    model, twin = clip_vision(), clip_vision()

    def fail(*_):
        raise RuntimeError("broken layer")

    apply_vtp(model, keep_ratio=0.5, layer=[0, 2])
    for layer in (1, 2):  # behind a stage, and in a stage's own layer
        handle = model.encoder.layers[layer].mlp.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="broken layer"):
            model(pixels())
        handle.remove()
    assert len(model(pixels()).last_hidden_state[0]) == 1 + 18
    remove_vtp(model)
    assert state(model) == state(twin)
    assert same(model(pixels()), twin(pixels()))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("layers, ratios", [([1], [0.4]), ([0, 2, 3], [0.8, 0.5, 0.2])])
@pytest.mark.parametrize("scorer", ["qk_norm", "random"])
def test_pruned_is_masked(scorer, layers, ratios, implementation):
    model = clip_vision(implementation=implementation)
    with vtp(model, method="qk_topk", scorer=scorer, layer=layers, keep_ratio=ratios):
        output = model(pixels(), output_hidden_states=True)
        stats = vtp_stats(model)
    states = masked_clip(model, pixels(), {s.layer: s.keep_indices for s in stats.stages})
    for b, kept in enumerate(stats.keep_indices):
        rows = torch.cat([torch.zeros(1, dtype=torch.long), kept + 1])
        torch.testing.assert_close(output.last_hidden_state[b], states[-1][b, rows], **CLOSE)
    pooled = model.post_layernorm(states[-1][:, 0])
    torch.testing.assert_close(output.pooler_output, pooled, **CLOSE)
    shapes = [h.shape[1] for h in output.hidden_states]
    assert shapes[0] == 37 and shapes[-1] == 1 + round(ratios[-1] * 36)
    assert [len(k) for k in stats.keep_indices] == stats.num_kept == [round(ratios[-1] * 36)] * 3


ABSORBING = {  # fields of the config, and whether means are weighted by scores
    "once": (dict(merger="absorb", layer=1), False),
    "and refined": (dict(merger="absorb", layer=1, merger_options={"lloyd": 2}), False),
    "twice": (dict(merger="absorb", layer=[0, 2]), False),
    "by default": (dict(), True),
    "by default, once": (dict(layer=1), True),
}


def replicated(tower, pixel_values, stats, weighted):
    """The full tower in which each member of a group holds what the statistics say the group became."""
    stages = {s.layer: s.assignment for s in stats.stages}
    return replicated_clip(
        tower, pixel_values, stages, {s.layer: s.scores for s in stats.stages} if weighted else None
    )


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("fields, weighted", ABSORBING.values(), ids=ABSORBING)
def test_absorbed_is_replicated(fields, weighted, implementation):
    model = clip_vision(layers=6, implementation=implementation)
    with vtp(model, keep_ratio=0.3, **fields):
        output = model(pixels())
        stats = vtp_stats(model)
    full, member = replicated(model, pixels(), stats, weighted)
    torch.testing.assert_close(output.pooler_output, model.post_layernorm(full[:, 0]), **CLOSE)
    for b in range(3):
        torch.testing.assert_close(output.last_hidden_state[b, 1:][member[b]], full[b, 1:], **CLOSE)
        sizes = torch.bincount(member[b], minlength=stats.num_kept[b]).float()
        assert torch.equal(stats.stages[-1].sizes[b], sizes) and sizes.sum() == 36
        assert torch.equal(stats.stages[-1].keep_indices[b], stats.keep_indices[b])


def test_statistics_of_the_default_agree_from_stage_to_stage():
    model = apply_vtp(clip_vision(layers=12), keep_ratio=0.2)
    model(pixels())
    stats = vtp_stats(model)
    assert [stage.layer for stage in stats.stages] == [2, 3, 5, 6, 8] and stats.num_kept == [7] * 3
    for b in range(3):
        before, sizes = torch.arange(36), torch.ones(36)
        for stage in stats.stages:
            kept, group = stage.keep_indices[b], stage.assignment[b]
            assert (kept.diff() > 0).all() and torch.isin(kept, before).all()
            assert len(kept) < len(before) == len(group) == len(stage.scores[b])
            # each group holds the token that it goes by, and its size is that of its members
            assert torch.equal(group[torch.isin(before, kept)], torch.arange(len(kept)))
            sizes = torch.zeros(len(kept)).index_add(0, group, sizes)
            assert torch.equal(stage.sizes[b], sizes) and sizes.sum() == 36
            before = kept
        assert torch.equal(before, stats.keep_indices[b])


@pytest.mark.parametrize("fields, weighted", ABSORBING.values(), ids=ABSORBING)
def test_classifier_mean_weighs_absorbed_tokens(fields, weighted):
    model, inputs = clip("CLIPForImageClassification"), clip_inputs("CLIPForImageClassification")
    with vtp(model, keep_ratio=0.3, **fields):
        logits = model(**inputs).logits
        stats = vtp_stats(model)
    full, _ = replicated(model.vision_model, inputs["pixel_values"], stats, weighted)
    torch.testing.assert_close(logits, model.classifier(full[:, 1:].mean(dim=1)), **CLOSE)


def test_text_tower_is_untouched():
    model, inputs = clip("CLIPModel"), clip_inputs("CLIPModel")
    plain = model(**inputs)
    with vtp(model, keep_ratio=0.3):
        pruned = model(**inputs)
        assert torch.equal(plain.text_embeds, pruned.text_embeds)
        assert not torch.equal(plain.image_embeds, pruned.image_embeds)
        features = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    torch.testing.assert_close(torch.nn.functional.normalize(features, dim=-1), pruned.image_embeds, **CLOSE)


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_batch_is_its_rows(method):
    model = apply_vtp(clip_vision(), keep_ratio=0.4, layer=[0, 2], method=method)
    whole = model(pixels(5))
    kept = vtp_stats(model).keep_indices
    for b in range(5):
        alone = model(pixels(5)[b : b + 1])
        assert torch.equal(vtp_stats(model).keep_indices[0], kept[b])
        states = alone.last_hidden_state[0]  # behind them there may be padding
        torch.testing.assert_close(states, whole.last_hidden_state[b, : len(states)], **CLOSE)
        torch.testing.assert_close(alone.pooler_output[0], whole.pooler_output[b], **CLOSE)


def test_deep_copy_runs_its_own_weights():
    model = apply_vtp(clip_vision(), keep_ratio=0.4, layer=1)
    plain = model(pixels())
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.mul_(1.3)
    fresh = clip_vision()
    fresh.load_state_dict(twin.state_dict())
    assert same(twin(pixels()), apply_vtp(fresh, keep_ratio=0.4, layer=1)(pixels()))
    assert same(model(pixels()), plain)
    assert vtp_stats(twin) is not vtp_stats(model)
    remove_vtp(twin)
    assert same(twin(pixels()), remove_vtp(fresh)(pixels())) and same(model(pixels()), plain)


def test_applied_twice_is_applied_once_and_applying_again_replaces():
    once, twice = clip_vision(), clip_vision()
    apply_vtp(once, keep_ratio=0.4, layer=1)
    apply_vtp(apply_vtp(twice, keep_ratio=0.4, layer=1), keep_ratio=0.4, layer=1)
    assert same(once(pixels()), twice(pixels()))
    assert state(once) == state(twice)
    apply_vtp(twice, keep_ratio=0.2, layer=0, method="qk_topk")
    fresh = apply_vtp(clip_vision(), keep_ratio=0.2, layer=0, method="qk_topk")
    assert same(fresh(pixels()), twice(pixels()))


def test_two_models_of_one_config_do_not_see_each_other():
    config = vision_config()
    torch.manual_seed(0)
    a, b = CLIPVisionModel(config).eval(), CLIPVisionModel(config).eval()
    plain = b(pixels())
    apply_vtp(a, keep_ratio=0.3)
    apply_vtp(a, keep_ratio=0.3)
    assert same(b(pixels()), plain)
    apply_vtp(b, keep_ratio=0.5)
    a(pixels())
    b(pixels())
    assert vtp_stats(a).num_kept == [11] * 3 and vtp_stats(b).num_kept == [18] * 3
    remove_vtp(a)
    b(pixels())
    assert vtp_stats(b).num_kept == [18] * 3


def test_hidden_states_agree_whichever_hooks_came_first():
    early, late = clip_vision(), clip_vision()
    early(pixels(), output_hidden_states=True)  # installs Transformers' capture hooks
    outputs = [
        apply_vtp(m, keep_ratio=0.4, layer=1)(pixels(), output_hidden_states=True) for m in (early, late)
    ]
    assert same(*outputs)
    assert [h.shape[1] for h in outputs[0].hidden_states] == [37, 37, 15, 15, 15]


def test_attentions_are_returned_narrowed():
    model = apply_vtp(clip_vision(implementation="eager"), keep_ratio=0.5, layer=1)
    shapes = [a.shape[2:] for a in model(pixels(), output_attentions=True).attentions]
    assert shapes == [(37, 37), (37, 37), (19, 19), (19, 19)]


def test_context_manager_restores_what_held_before():
    model = clip_vision()
    plain = model(pixels())
    with vtp(model, keep_ratio=0.5, layer=1):
        half = model(pixels())
        with vtp(model, keep_ratio=0.2, layer=0, method="random"):
            model(pixels())
            assert vtp_stats(model).num_kept == [7] * 3
        assert vtp_stats(model).num_kept == [18] * 3  # of the outer pruning's own last forward
        assert same(model(pixels()), half)
        with pytest.raises(RuntimeError, match="inside"), vtp(model, keep_ratio=0.3):
            raise RuntimeError("inside")
        assert same(model(pixels()), half)
    assert same(model(pixels()), plain)
    with pytest.raises(RuntimeError, match="not pruned"):
        vtp_stats(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_half_precision_keeps_what_float32_scores_keep(method, dtype):
    model = clip_vision().to(dtype)
    apply_vtp(model, keep_ratio=0.4, layer=[0, 2], method=method)
    output = model(pixels().to(dtype))
    assert output.last_hidden_state.dtype == dtype and output.last_hidden_state.isfinite().all()
    scores = vtp_stats(model).stages[0].scores
    assert all(s.dtype == torch.float32 for s in scores)
    if method in ("vtp", "qk_topk"):
        assert all(len(s.unique()) == 36 for s in scores)  # scores rounded to half precision would collide


def test_autocast_scores_in_float32():
    model = apply_vtp(clip_vision(), keep_ratio=0.4, layer=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(pixels())
    assert output.last_hidden_state.shape == (3, 15, 32)
    assert vtp_stats(model).stages[0].scores[0].dtype == torch.float32


def test_other_image_sizes():
    model = clip_vision()
    images = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    with vtp(model, keep_ratio=0.5, layer=1, method="uniform"):
        assert model(images, interpolate_pos_encoding=True).last_hidden_state.shape[1] == 31
        assert vtp_stats(model).grids == [(1, 6, 10)] * 2
        assert model(pixels()).last_hidden_state.shape[1] == 19
        with pytest.raises(ValueError, match="doesn't match model"):
            model(images)


def test_save_pretrained_round_trip(tmp_path):
    model = clip_vision()
    plain = model(pixels())
    apply_vtp(model, keep_ratio=0.5).save_pretrained(tmp_path)
    assert same(CLIPVisionModel.from_pretrained(tmp_path).eval()(pixels()), plain)


def test_min_and_max_keep_bound_the_count():
    model = clip_vision()
    apply_vtp(model, keep_ratio=0.1, min_keep=9, layer=0)(pixels())
    assert vtp_stats(model).num_kept == [9] * 3
    apply_vtp(model, keep_ratio=0.9, max_keep=5, layer=0)(pixels())
    assert vtp_stats(model).num_kept == [5] * 3
    apply_vtp(model, keep_ratio=0.01, layer=0)(pixels())
    assert vtp_stats(model).num_kept == [1] * 3
    apply_vtp(model, keep_ratio=0.5, min_keep=1000, layer=0)(pixels())
    assert vtp_stats(model).num_kept == [36] * 3


def test_random_scores_leave_torchs_generators_alone_and_follow_the_seed():
    model, kept = clip_vision(), []
    for seed in (0, 0, 1, 123456789):
        apply_vtp(model, method="random", keep_ratio=0.3, scorer_options={"seed": seed}, layer=0)
        before = torch.get_rng_state()
        model(pixels())
        assert torch.equal(before, torch.get_rng_state())
        kept.append(vtp_stats(model).keep_indices[0].tolist())
    assert kept[0] == kept[1] and len({tuple(k) for k in kept}) == 3


def test_a_layer_called_alone_is_not_pruned():
    model, x = clip_vision(), torch.randn(1, 37, 32)
    plain = model.encoder.layers[1](x, None)
    apply_vtp(model, keep_ratio=0.5, layer=[0, 1])
    assert torch.equal(model.encoder.layers[1](x, None), plain)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(layer=4), "choose from 0 to 3"),
        (dict(layer=-1), "choose from 0 to 3"),
        (dict(layer="output"), "give CLIPVisionModel an encoder layer"),
        (dict(layer=[0, 2], keep_ratio=[0.5]), "give one per layer"),
        (dict(method="nope"), "choose from .*'qk_topk'"),
        (dict(ratio=0.5), "unknown argument 'ratio'.*keep_ratio"),
    ],
)
def test_refusals_change_nothing(arguments, message):
    model = apply_vtp(clip_vision(), keep_ratio=0.5, layer=1)
    before, held = state(model), model(pixels())
    with pytest.raises(ValueError, match=message):
        apply_vtp(model, **arguments)
    assert state(model) == before and same(model(pixels()), held)


def test_a_config_that_is_none_is_refused():
    with pytest.raises(TypeError, match="VTPConfig or None, not 0.5"):
        apply_vtp(clip_vision(), 0.5)


def test_unsupported_models_are_refused_by_name():
    from transformers import BeitConfig, BeitModel

    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    with pytest.raises(ValueError, match="beit.*relative position bias.*one of .*'clip'"):
        apply_vtp(BeitModel(BeitConfig(**sizes)))
    with pytest.raises(ValueError, match="clip_text_model"):
        apply_vtp(clip("CLIPModel").text_model)
    with pytest.raises(ValueError, match="Linear"):
        apply_vtp(torch.nn.Linear(2, 2))


def test_a_part_cannot_be_pruned_twice():
    model = clip("CLIPModel")
    apply_vtp(model.vision_model, keep_ratio=0.5)
    with pytest.raises(ValueError, match="part of this model is pruned already"):
        apply_vtp(model)
    remove_vtp(model.vision_model)
    apply_vtp(model)


def test_flash_attention_gets_no_mask(monkeypatch):
    """FlashAttention reads a mask as padding: behind an absorbing stage SDPA runs, and only there."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    calls = []

    def stub(module, query, key, value, attention_mask, **kwargs):
        assert attention_mask is None and hf_vtp.pruning.run.RUN not in kwargs
        calls.append(query.shape[2])
        return torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", stub)
    model, reference = clip_vision(), clip_vision()
    configs = [layer.self_attn.config for layer in model.encoder.layers]
    model.config._attn_implementation = "flash_attention_2"
    for method, seen in (("vtp", [37, 37]), ("qk_topk", [37, 37, 19, 19])):
        calls.clear()
        apply_vtp(model, keep_ratio=0.5, layer=1, method=method)
        apply_vtp(reference, keep_ratio=0.5, layer=1, method=method)
        torch.testing.assert_close(model(pixels())[0], reference(pixels())[0], **CLOSE)
        assert calls == seen
    apply_vtp(model, keep_ratio=0.5, layer=1)
    model.config._attn_implementation = "eager"  # switched while pruned: every layer follows
    assert len(model(pixels(), output_attentions=True).attentions) == 4
    remove_vtp(model)
    assert all(layer.self_attn.config is c for layer, c in zip(model.encoder.layers, configs, strict=True))
