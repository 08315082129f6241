"""Qwen2.5-VL and Qwen2-VL: the tower against a masked one, windows, sizes, video, m-RoPE's cached deltas."""

import pytest
import torch
from models import IMAGE_METHODS, same
from qwen import IMAGE, VIDEO, Qwen, Qwen2, masked_qwen_tower
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from vlm import expected_rows

from hf_vtp import apply_vtp, remove_vtp, vtp, vtp_stats
from hf_vtp.methods.layers import default_layers

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models
MODELS = pytest.mark.parametrize("family", [Qwen, Qwen2], ids=lambda f: f.name)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def pictures(grids, seed=3):
    patches = sum(t * h * w for t, h, w in grids)
    return torch.randn(patches, 96, generator=torch.Generator().manual_seed(seed)), torch.tensor(grids)


@MODELS
def test_the_masked_tower_of_these_tests_is_the_tower(family):
    model = family.model()
    pixels, grids = pictures([(1, 8, 12), (2, 4, 4), (1, 12, 20)])
    expected, _ = masked_qwen_tower(model.model.visual, pixels, grids, {})
    torch.testing.assert_close(model.model.visual(pixels, grid_thw=grids).pooler_output, expected, **CLOSE)


@MODELS
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "layers, ratios", [([0], [0.5]), ([1], [0.3]), ([0, 1, 2], [0.8, 0.5, 0.1]), ([3], [0.4])]
)
@pytest.mark.parametrize("scorer", ["qk_norm", "random"])
def test_pruned_tower_is_the_masked_tower(family, scorer, layers, ratios, implementation):
    model = family.model(implementation=implementation)
    grids = [(1, 8, 12), (1, 4, 4), (1, 12, 20), (1, 8, 12), (3, 4, 8)]
    pixels, grid_thw = pictures(grids)
    apply_vtp(model, method="qk_topk", scorer=scorer, layer=layers, keep_ratio=ratios)
    rows = model.model.visual(pixels, grid_thw=grid_thw).pooler_output
    stats = vtp_stats(model)
    stages = {s.layer: s.keep_indices for s in stats.stages}
    expected, left = masked_qwen_tower(model.model.visual, pixels, grid_thw, stages)
    torch.testing.assert_close(rows[left], expected[left], **CLOSE)
    assert rows[~left].isnan().all()
    for grid, n, k, kept in zip(grids, stats.num_tokens, stats.num_kept, stats.keep_indices, strict=True):
        per_frame = grid[1] * grid[2] // 4
        assert n == grid[0] * per_frame and k == len(kept) == grid[0] * max(1, round(ratios[-1] * per_frame))
        assert (kept.diff() > 0).all()


@MODELS
def test_absorbed_units_are_means_of_their_groups(family):
    """No bias can be had in this attention: only the merge itself is checked, and that sizes are tracked."""
    model = family.model()
    pixels, grid_thw = pictures([(1, 8, 12), (1, 4, 4)])
    outputs = []
    model.model.visual.blocks[3].register_forward_hook(lambda m, args, out: outputs.append(out))
    model.model.visual(pixels, grid_thw=grid_thw)
    apply_vtp(model, layer="output", keep_ratio=0.25)
    model.model.visual(pixels, grid_thw=grid_thw)
    stats, full = vtp_stats(model), outputs[0]
    order = torch.arange(28)
    if family is Qwen:
        from transformers.vision_utils import get_vision_window_index

        order = get_vision_window_index(grid_thw, 2, 16, 4)[0]
    units = full.view(28, 4, -1)[torch.argsort(order)]
    for image, offset in ((0, 0), (1, 24)):
        groups, sizes = stats.stages[0].assignment[image], stats.stages[0].sizes[image]
        assert sizes.sum() == stats.num_tokens[image]
        for g, place in enumerate(stats.keep_indices[image]):
            members = torch.nonzero(groups == g)[:, 0]
            assert len(members) == sizes[g] and place in members
            mean = units[offset + members].mean(dim=0)
            slot = units_left(stats, order, image, g, offset)
            torch.testing.assert_close(outputs_narrowed(model, pixels, grid_thw)[slot], mean, **CLOSE)


def outputs_narrowed(model, pixels, grid_thw):
    return model.model.visual(pixels, grid_thw=grid_thw).last_hidden_state.view(-1, 4, 32)


def units_left(stats, order, image, g, offset):
    """The place of a kept unit in the narrowed sequence, which keeps the order of windows."""
    kept = torch.cat([stats.keep_indices[0], stats.keep_indices[1] + 24])
    left = [int(u) for u in order if u in kept]
    return left.index(int(stats.keep_indices[image][g]) + offset)


@MODELS
def test_later_blocks_and_the_merger_see_kept_units_only(family):
    model, rows = family.model(), []
    apply_vtp(model, layer=1, keep_ratio=0.25)
    visual = model.model.visual
    for module in (*visual.blocks, visual.merger):
        module.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    pixels, grid_thw = pictures([(1, 8, 12), (1, 4, 4)])
    visual(pixels, grid_thw=grid_thw)
    assert rows == [112, 112, 28, 28, 28]


@pytest.mark.parametrize("method", ["qk_topk", "vtp"])
def test_flash_attention_gets_narrowed_lengths(monkeypatch, method):
    """A stub in the kernel's place checks every length it is given and computes by SDPA."""
    calls = []

    def stub(module, query, key, value, attention_mask, scaling=None, **kwargs):
        lengths = kwargs["cu_seq_lens_q"]
        assert attention_mask is None and lengths is kwargs["cu_seq_lens_k"] and lengths.dtype == torch.int32
        assert lengths[0] == 0 and lengths[-1] == query.shape[2] == key.shape[2]
        longest = int(kwargs["max_length_q"])
        assert (lengths.diff() >= 0).all() and lengths.diff().max() <= longest <= query.shape[2]
        assert not any("vtp" in name for name in kwargs)
        calls.append(lengths.diff().tolist())
        parts = [x.split(lengths.diff().tolist(), dim=2) for x in (query, key, value)]
        attend = torch.nn.functional.scaled_dot_product_attention
        return torch.cat([attend(*p, scale=scaling) for p in zip(*parts, strict=True)], 2).transpose(
            1, 2
        ), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", stub)
    model, reference = Qwen.model(), Qwen.model()
    pixels, grid_thw = pictures([(1, 8, 12), (1, 4, 4), (1, 12, 20)])
    for m in (model, reference):
        apply_vtp(m, method=method, layer=[0, 2], keep_ratio=[0.4, 0.05])
    expected = reference.model.visual(pixels, grid_thw=grid_thw).pooler_output
    model.model.visual.config._attn_implementation = "flash_attention_2"
    rows = model.model.visual(pixels, grid_thw=grid_thw).pooler_output
    torch.testing.assert_close(rows, expected, **CLOSE, equal_nan=True)
    assert [len(c) for c in calls[1::2]] == [3, 3]  # full attention: one segment an image
    assert sum(calls[0]) == 352 and sum(calls[1]) == sum(calls[2]) == 4 * sum(
        round(0.4 * n) for n in (24, 4, 60)
    )
    assert len(calls[2]) == len(calls[0])  # one for every window, also where
    if method == "qk_topk":  # (the default spreads what it keeps over all of them)
        assert 0 in calls[2]  # one became empty


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_images_do_not_see_their_neighbours(method):
    model = apply_vtp(Qwen.model(), layer=[0, 1], keep_ratio=0.3, method=method)
    grids = [(1, 8, 12), (1, 4, 4), (1, 8, 12), (1, 12, 20)]
    pixels, grid_thw = pictures(grids)
    together = model.model.visual(pixels, grid_thw=grid_thw).pooler_output
    kept, start = vtp_stats(model).keep_indices, 0
    for i, (t, h, w) in enumerate(grids):
        n = t * h * w
        alone = model.model.visual(pixels[start : start + n], grid_thw=grid_thw[i : i + 1]).pooler_output
        assert torch.equal(vtp_stats(model).keep_indices[0], kept[i])
        torch.testing.assert_close(alone, together[start // 4 : (start + n) // 4], **CLOSE, equal_nan=True)
        start += n


@MODELS
def test_default_stages_make_the_tower_itself_cheaper(family):
    model, rows = apply_vtp(family.model(), keep_ratio=0.5), []
    visual = model.model.visual
    assert list(model._vtp.tower.stages) == default_layers(4) == [0, 1, 2]
    for module in (*visual.blocks, visual.merger):
        module.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    pixels, grid_thw = pictures([(1, 8, 12), (1, 4, 4)])
    visual(pixels, grid_thw=grid_thw)
    assert 112 == rows[0] > rows[1] > rows[2] > rows[3] == rows[4] == 56
    with pytest.raises(ValueError, match="choose from 0 to 3"):
        apply_vtp(model, layer=4)


# video


def clip_inputs(seed=1):
    """A prompt with an image and two clips, and one with text alone."""
    g = torch.Generator().manual_seed(seed)
    clips, image = [(3, 4, 8), (2, 8, 8)], (1, 8, 12)
    row = [5, 6] + [92] + [IMAGE] * 24 + [93, 7]
    for t, h, w in clips:
        row += [92] + [VIDEO] * (t * h * w // 4) + [93, 8, 9]
    inputs = Qwen.padded([row + [3, 4, 11], [5, 12, 13]])
    inputs["pixel_values"], inputs["image_grid_thw"] = torch.randn(96, 96, generator=g), torch.tensor([image])
    inputs["pixel_values_videos"] = torch.randn(sum(t * h * w for t, h, w in clips), 96, generator=g)
    inputs["video_grid_thw"], inputs["second_per_grid_ts"] = torch.tensor(clips), torch.tensor([1.0, 0.5])
    return inputs


@MODELS
@pytest.mark.parametrize("budget", ["frame", "clip"])
@pytest.mark.parametrize("method", ["vtp", "qk_topk", "random"])
def test_images_and_videos_in_one_prompt(family, budget, method):
    inputs, model = clip_inputs(), family.model()
    if family is Qwen2:
        del inputs["second_per_grid_ts"]
    apply_vtp(model, keep_ratio=0.3, layer=[0, 1], method=method, video_budget=budget)
    logits = model(**inputs).logits
    stats = vtp_stats(model)
    assert stats.grids == [(1, 4, 6), (3, 2, 4), (2, 4, 4)] and stats.num_tokens == [24, 24, 32]
    for (t, h, w), kept in zip(stats.grids, stats.keep_indices, strict=True):
        shares = torch.bincount(kept // (h * w), minlength=t)
        if budget == "frame":
            assert (shares == round(0.3 * h * w)).all()
        assert shares.sum() == (t * round(0.3 * h * w) if budget == "frame" else round(0.3 * t * h * w))
    full = family.reference(model, inputs)
    expected = expected_rows(family.model()(**full).logits, full["attention_mask"])
    torch.testing.assert_close(logits, expected, **CLOSE)
    model(**inputs)  # the reference encoded by itself: the statistics must be of both media again
    twin, full = family.model(), family.reference(model, inputs, generating=True)
    for mode in (dict(), dict(num_beams=2)):
        new = model.generate(**inputs, max_new_tokens=6, **mode)[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(new, twin.generate(**full, max_new_tokens=6, **mode))


@pytest.mark.parametrize("budget", ["frame", "clip"])
def test_pruned_clips_are_masked_clips(budget):
    model = apply_vtp(Qwen.model(), method="qk_topk", keep_ratio=0.3, layer=[0, 2], video_budget=budget)
    pixels, grid_thw = pictures([(3, 4, 8), (2, 8, 8), (3, 4, 8)])
    rows = model.model.visual(pixels, grid_thw=grid_thw).pooler_output
    stages = {s.layer: s.keep_indices for s in vtp_stats(model).stages}
    expected, left = masked_qwen_tower(model.model.visual, pixels, grid_thw, stages)
    torch.testing.assert_close(rows[left], expected[left], **CLOSE)


def test_absorbing_in_a_clip_tracks_its_groups():
    for budget in ("frame", "clip"):
        model = apply_vtp(Qwen.model(), keep_ratio=0.3, layer=[0, 2], video_budget=budget)
        pixels, grid_thw = pictures([(3, 4, 8), (1, 8, 8)])
        model.model.visual(pixels, grid_thw=grid_thw)
        for stage in vtp_stats(model).stages:
            for kept, groups, sizes in zip(stage.keep_indices, stage.assignment, stage.sizes, strict=True):
                assert groups.max() == len(kept) - 1 == len(sizes) - 1
        assert [s.sum() for s in vtp_stats(model).stages[-1].sizes] == [24, 16]


# m-RoPE


@MODELS
def test_rope_deltas_are_never_left_stale(family):
    """pruned, then unpruned, then text alone: each as on a fresh model."""
    model, image = family.model(), family.inputs((2, 1))
    text = family.inputs((0, 0))
    fresh = [family.model().generate(**i, max_new_tokens=4) for i in (image, text)]
    for _ in range(2):
        with vtp(model, keep_ratio=0.3):
            model(**image)
            pruned = model.generate(**image, max_new_tokens=4)
        deltas = model.model.rope_deltas
        assert torch.equal(model.generate(**image, max_new_tokens=4), fresh[0])
        assert torch.equal(model.model.rope_deltas, deltas)  # as the unpruned call leaves them
        assert torch.equal(model.generate(**text, max_new_tokens=4), fresh[1])
        with vtp(model, keep_ratio=0.3):
            assert torch.equal(model.generate(**text, max_new_tokens=4), fresh[1])
            assert torch.equal(model.generate(**image, max_new_tokens=4), pruned)
    output = model(**text, use_cache=True)
    twin = family.model()
    assert same(output.logits, twin(**text, use_cache=True).logits)


@MODELS
def test_without_token_types_positions_are_those_of_text(family):
    """Transformers makes no m-RoPE positions without them; neither do we."""
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    del inputs["mm_token_type_ids"]
    logits = model(**inputs).logits
    full = family.reference(model, inputs)
    full["position_ids"] = torch.arange(logits.shape[1]).expand(3, 2, -1)
    expected = expected_rows(family.model()(**full).logits, full["attention_mask"])
    torch.testing.assert_close(logits, expected, **CLOSE)


@MODELS
def test_callers_own_positions_are_kept(family):
    model, inputs = apply_vtp(family.model(), keep_ratio=0.3), family.inputs((1, 2))
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )
    expected = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, position_ids=positions).logits, expected, **CLOSE)


def test_missing_grids_are_a_clear_error():
    model, inputs = apply_vtp(Qwen.model(), keep_ratio=0.3), Qwen.inputs((1,))
    del inputs["image_grid_thw"]
    with pytest.raises(ValueError, match="image_grid_thw"):
        model(**inputs)


@MODELS
def test_half_precision_and_gradients(family):
    model, inputs = family.model(), family.inputs((1, 2))
    apply_vtp(model, keep_ratio=0.3, layer=[0, 1])
    with torch.enable_grad():
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        model(**inputs, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    low = apply_vtp(family.model().bfloat16(), keep_ratio=0.3)
    assert low(**inputs).logits.isfinite().all()
    assert vtp_stats(low).stages[0].scores[0].dtype == torch.float32


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("merger", ["drop", "absorb"])
def test_checkpointed_gradients_are_the_plain_ones(reentrant, merger):
    with torch.enable_grad():
        gradients = []
        for checkpointing in (False, True):
            model = Qwen.model().train()
            if checkpointing:
                model.gradient_checkpointing_enable(
                    gradient_checkpointing_kwargs={"use_reentrant": reentrant}
                )
                model.enable_input_require_grads()
            apply_vtp(model, merger=merger, layer=[0, 2], keep_ratio=0.3)
            losses = []
            for seed in (1, 2):  # two forwards before one backward
                inputs = Qwen.inputs((1, 2), seed=seed)
                inputs["pixel_values"].requires_grad_()
                losses.append(model(**inputs, labels=inputs["input_ids"]).loss)
            sum(losses).backward()
            gradients.append({n: p.grad for n, p in model.named_parameters()})
        for name, plain in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], plain, **CLOSE)


def test_hooks_leave_with_the_pruning():
    model, inputs = Qwen.model(), Qwen.inputs((1,))
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    apply_vtp(model, keep_ratio=0.3)(**inputs)
    remove_vtp(model)
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == before
