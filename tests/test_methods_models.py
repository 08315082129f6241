"""Named methods inside whole models: oracles, counts that follow the image, watched layers, text."""

from dataclasses import replace

import pytest
import torch
from models import DROPPING, clip, clip_inputs, clip_vision, pixels
from oracles import masked_clip
from qwen import Qwen, Qwen2, masked_qwen_tower
from vlm import FAMILIES, expected_rows

from hf_vtp import VTPConfig, apply_vtp, list_methods, vtp, vtp_stats
from hf_vtp.methods.selectors import SELECTORS
from hf_vtp.methods.table import METHODS
from hf_vtp.pruning.stage import adaptive, watched

CLOSE = dict(atol=1e-5, rtol=1e-5)
ADAPTIVE = [name for name in METHODS if adaptive(VTPConfig(method=name))]
TEXT = [name for name, row in list_methods().items() if "text" in row["needs"]]
pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("method", DROPPING)
def test_pruned_is_masked_in_clip(method, implementation):
    model = clip_vision(implementation=implementation)
    apply_vtp(model, method=method, keep_ratio=0.4)
    output, stats = model(pixels(5)), vtp_stats(model)
    states = masked_clip(model, pixels(5), {s.layer: s.keep_indices for s in stats.stages})
    torch.testing.assert_close(output.pooler_output, model.post_layernorm(states[-1][:, 0]), **CLOSE)
    for b, kept in enumerate(stats.keep_indices):
        rows = torch.cat([torch.zeros(1, dtype=torch.long), kept + 1])
        states_left = output.last_hidden_state[b, : len(rows)]
        torch.testing.assert_close(states_left, states[-1][b, rows], **CLOSE)


@pytest.mark.parametrize("family", [Qwen, Qwen2])
@pytest.mark.parametrize("method", DROPPING)
def test_pruned_is_masked_in_qwen(method, family):
    model = family.model()
    layers = None if METHODS[method].layers else [0, 2]
    apply_vtp(model, method=method, keep_ratio=0.4, layer=layers)
    grid_thw = torch.tensor([(1, 8, 12), (1, 4, 4), (1, 8, 12), (3, 4, 8)])
    g = torch.Generator().manual_seed(1)
    patches = torch.randn(int(grid_thw.prod(-1).sum()), 96, generator=g)
    output, stats = model.model.visual(patches, grid_thw=grid_thw).pooler_output, vtp_stats(model)
    stages = {s.layer: s.keep_indices for s in stats.stages}
    expected, left = masked_qwen_tower(model.model.visual, patches, grid_thw, stages)
    assert torch.equal(output.isnan().any(dim=-1), ~left)
    torch.testing.assert_close(output[left], expected[left], **CLOSE)
    assert [len(k) for k in stats.keep_indices] == stats.num_kept


@pytest.mark.parametrize("name", list(METHODS))
@pytest.mark.parametrize("family", [*FAMILIES, "clip"])
def test_every_method_runs_everywhere_or_says_why(family, name):
    model = clip("CLIPModel") if family == "clip" else FAMILIES[family].model()
    if family == "clip" and name in TEXT:
        with pytest.raises(ValueError, match="text of a prompt"):
            apply_vtp(model, method=name)
        return
    inputs = clip_inputs("CLIPModel") if family == "clip" else FAMILIES[family].inputs((1, 0, 3))
    apply_vtp(model, method=name, keep_ratio=0.4, min_keep=2, max_keep=20)
    output, stats = model(**inputs), vtp_stats(model)
    states = output.image_embeds if family == "clip" else output.logits
    assert states.isfinite().all()
    bounds = [(min(2, n), 20) for n in stats.num_tokens]
    assert all(low <= k <= high for k, (low, high) in zip(stats.num_kept, bounds, strict=True))
    if list_methods()[name]["keep_ratio"] == "exact":
        counts = [min(20, max(2, round(0.4 * n))) for n in stats.num_tokens]
        assert stats.num_kept == counts
    for stage in stats.stages:
        for kept, groups, sizes in zip(stage.keep_indices, stage.assignment, stage.sizes, strict=True):
            assert (kept.diff() > 0).all() and len(sizes) == len(kept)
            assert set(groups.tolist()) <= {-1, *range(len(kept))}


@pytest.mark.parametrize("merger", ["drop", "absorb", "knn_weighted", "contextual", "propagate"])
@pytest.mark.parametrize("selector", ["threshold", "mass", "iqr", "entropy"])
def test_counts_follow_the_image_and_not_the_batch(selector, merger):
    options = {"mass": {"p": 0.7}, "iqr": {"whisker": 0.4}}.get(selector, {})
    told = dict(method="fastervlm", selector=selector, merger=merger, layer=[0, 2], keep_ratio=0.5)
    model = apply_vtp(clip_vision(), **told, selector_options=options)
    images = pixels(5) * torch.tensor([0.1, 1.0, 2.0, 0.5, 4.0])[:, None, None, None]
    whole, stats = model(images), vtp_stats(model)
    if selector != "entropy":
        assert any(len({len(kept) for kept in stage.keep_indices}) > 1 for stage in stats.stages)
    for b in range(5):
        alone = model(images[b : b + 1])
        one = vtp_stats(model)
        for stage, own in zip(stats.stages, one.stages, strict=True):
            assert torch.equal(stage.keep_indices[b], own.keep_indices[0])
            assert torch.equal(stage.assignment[b], own.assignment[0])
            torch.testing.assert_close(stage.sizes[b], own.sizes[0])
        torch.testing.assert_close(alone.pooler_output[0], whole.pooler_output[b], **CLOSE)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("rows", [(1, 0, 3), (2, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_ragged_prompts_are_the_masked_models(family, rows, name):
    """Forward and greedy generate of a batch in which images keep different numbers of tokens."""
    family = FAMILIES[family]
    model, twin, inputs = family.model(), family.model(), family.inputs(rows)
    layer = {"layer": [0, 1]} if METHODS[name].layers == "output" else {}
    apply_vtp(model, method=name, keep_ratio=0.4, **layer)
    output = model(**inputs)
    if "text" not in list_methods()[name]["needs"]:  # the reference encodes images without a prompt
        reference = family.reference(model, inputs)
        expected = expected_rows(twin(**reference).logits, reference["attention_mask"])
        torch.testing.assert_close(output.logits, expected, **CLOSE)
    stats = vtp_stats(model)
    start = 0
    for r, images in enumerate(rows):
        alone = model(**family.row(inputs, r, start, images)).logits[0]
        live = inputs["attention_mask"][r].bool()
        torch.testing.assert_close(alone[live], output.logits[r][live], **CLOSE)
        if images:
            kept = vtp_stats(model).keep_indices
            assert all(
                torch.equal(a, b)
                for a, b in zip(kept, stats.keep_indices[start : start + images], strict=True)
            )
        start += images
    tokens = model.generate(**inputs, max_new_tokens=4, num_beams=2)
    assert torch.equal(tokens[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])


@pytest.mark.parametrize("budget", ["frame", "clip"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_frames_of_a_video_have_counts_of_their_own(name, budget):
    model, inputs = (
        Qwen.model(),
        Qwen.inputs((1, 1), grids=[(3, 4, 8), (2, 8, 8)], media=Qwen.tokens["video_token_id"]),
    )
    layers = None if METHODS[name].layers else [0, 1]
    apply_vtp(model, method=name, keep_ratio=0.4, video_budget=budget, layer=layers)
    whole, stats = model(**inputs).logits, vtp_stats(model)
    frames = [
        [int(((k // size) == f).sum()) for f in range(n)]
        for k, n, size in zip(stats.keep_indices, (2, 3), (16, 8), strict=True)
    ]
    assert stats.num_kept == [sum(f) for f in frames] and whole.isfinite().all()
    if "clip" in list_methods()[name]["needs"]:  # compares frames, whatever the budget
        assert all(f[0] == size for f, size in zip(frames, (16, 8), strict=True))
    elif budget == "frame":
        assert all(min(f) >= 1 for f in frames)
    for stage in stats.stages:
        for kept, groups in zip(stage.keep_indices, stage.assignment, strict=True):
            assert (kept.diff() > 0).all() and groups.max() == len(kept) - 1 and groups.min() >= -1


def test_methods_that_watch_layers_see_them_in_any_order_of_stages():
    """A watched layer's attention is that of the tokens it had, found again for those that are left."""
    model = clip_vision(layers=8)
    apply_vtp(
        model, method="hiprune", layer=[1, 6], keep_ratio=[0.8, 0.3], selector_options={"anchor_depth": 0.5}
    )
    rows = {}
    attention = model.encoder.layers[3].self_attn
    for name in ("q_proj", "k_proj"):
        getattr(attention, name).register_forward_hook(
            lambda m, a, out, name=name: rows.__setitem__(name, out)
        )
    model(pixels(2))
    stats = vtp_stats(model)
    q, k = (rows[name].unflatten(-1, (4, 8)).transpose(1, 2) for name in ("q_proj", "k_proj"))
    received = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1).sum(2).mean(1)[:, 1:]  # [B, 29]
    for b in range(2):
        anchor = stats.stages[0].keep_indices[b][received[b].argmax()]
        assert anchor in stats.stages[1].keep_indices[b]
    with vtp(model, method="hiprune", layer=0, keep_ratio=0.3):  # the middle lies behind the stage
        model(pixels(2))
        assert vtp_stats(model).num_kept == [11, 11]


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("family", FAMILIES)
def test_text_decides(family, name):
    """The same image in another prompt keeps other tokens; padding and other rows change nothing."""
    family = FAMILIES[family]
    options = {"neighbours": 2} if name == "recoverable" else {}  # on noise, more find no outliers
    model = apply_vtp(family.model(), method=name, keep_ratio=0.3, selector_options=options)
    inputs = family.inputs((1, 1), tail=9)
    kept = []
    for text in (3, 50, 20, 35):
        ids = inputs["input_ids"].clone()
        ids[:, -6:] = torch.arange(text, text + 6)
        model(**{**inputs, "input_ids": ids})
        kept.append(vtp_stats(model).keep_indices)
    assert len({str(k) for k in kept}) > 1
    with pytest.raises(ValueError, match="call the whole model"):
        model.model.get_image_features(
            **{k: inputs[k] for k in ("pixel_values", "image_grid_thw") if k in inputs}
        )


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", [*ADAPTIVE, "tome", "visionzip", "hiprune"])
def test_checkpointed_gradients_are_the_plain_ones(name, reentrant):
    if name in TEXT:
        pytest.skip("CLIP has no prompt")
    gradients = []
    with torch.enable_grad():
        for checkpointing in (False, True):
            model = clip_vision().train()
            if checkpointing:
                model.gradient_checkpointing_enable(
                    gradient_checkpointing_kwargs={"use_reentrant": reentrant}
                )
            apply_vtp(model, method=name, keep_ratio=0.3)
            images = pixels(3).requires_grad_()
            model(images).pooler_output.square().mean().backward()
            gradients.append(
                [images.grad, *(p.grad for p in model.encoder.parameters() if p.grad is not None)]
            )
    assert all(g.isfinite().all() for g in gradients[0])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, **CLOSE)


def test_the_middle_is_where_the_paper_has_it():
    config = VTPConfig(method="hiprune")
    assert list(watched(config, [22], 24, 1)) == [8] and list(watched(config, [31], 32, 0)) == [15]
    assert list(watched(config, [3], 24, 1)) == [3]


def test_tome_never_merges_more_than_half_at_once_and_tracks_every_token():
    model = apply_vtp(clip_vision(), method="tome", keep_ratio=0.2, layer=1)
    model(pixels())
    for sizes in vtp_stats(model).stages[0].sizes:
        assert len(sizes) == 7 and sizes.sum() == 36
    apply_vtp(model, method="tome", keep_ratio=0.5)
    model(pixels())
    assert [len(s.keep_indices[0]) for s in vtp_stats(model).stages] == [32, 27, 22, 18]  # as many each time


@pytest.mark.parametrize("family", ["clip", "qwen"])
def test_the_order_of_tome_reaches_its_next_stage(family, monkeypatch):
    row, calls = SELECTORS["bipartite"], []

    def spy(scores, tokens):
        calls.append((tokens.order, row.function(scores, tokens)))
        return calls[-1][1]

    monkeypatch.setitem(SELECTORS, "bipartite", replace(row, function=spy))
    if family == "clip":
        apply_vtp(clip_vision(), method="tome", keep_ratio=0.5)(pixels())
    else:  # each frame has an order of its own
        model = apply_vtp(Qwen.model(), method="tome", keep_ratio=0.5)
        model.model.visual(torch.randn(96, 96), grid_thw=torch.tensor([(3, 4, 8)]))
    assert len(calls) == 4 and calls[0][0] is None
    for (_, chosen), (handed, _) in zip(calls, calls[1:], strict=False):
        made = chosen.order
        assert torch.equal(handed, made) and handed.shape == chosen.keep.shape
        assert not torch.equal(made, made.sort(dim=1).values)


def test_a_limit_is_said():
    config = VTPConfig(method="scope", keep_ratio=0.5)
    from hf_vtp import VisionTokens
    from hf_vtp.pruning.stage import prune

    tokens = VisionTokens(torch.zeros(1, 4097, 1), num_keep=1, grid=(1, 1, 4097))
    with pytest.raises(ValueError, match="'scope' takes at most 4096 tokens an image, not 4097"):
        prune(tokens, config)


def test_compiled_towers_of_adaptive_methods_are_right():
    """Counts that follow the image break the graph; the result is the same."""
    model = apply_vtp(clip_vision(), method="dynamic", keep_ratio=0.4)
    eager = model(pixels()).pooler_output
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(pixels()).pooler_output, eager, **CLOSE)
