"""Vision towers alone: what verify does not see of heads, sizes, registers, masks, padding and gradients."""

import threading

import pytest
import torch
from families import made
from models import same, state, tensors

from hf_vtp import apply_vtp, remove_vtp, vtp, vtp_stats

CLOSE = dict(atol=1e-5, rtol=1e-5)
METHODS = {
    "drop": dict(method="qk_topk", layer=0, keep_ratio=0.5),
    "absorb": dict(method="vtp", merger="absorb", layer=0, keep_ratio=0.5),
    "default": dict(keep_ratio=0.5),
    "adaptive": dict(method="dynamic", layer=0, keep_ratio=0.5),
    "two stages": dict(method="random", merger="absorb", layer=[0, 1], keep_ratio=[0.7, 0.4]),
}
TOWERS = {
    "siglip_vision_model": "SiglipVisionModel",
    "aimv2_vision_model": "Aimv2VisionModel",
    "siglip2_vision_model": "Siglip2VisionModel",
    "mlcd_vision_model": "MLCDVisionModel",
    "vit": "ViTModel",
    "deit": "DeiTModel",
    "dinov2": "Dinov2Model",
    "dinov3_vit": "DINOv3ViTModel",
    "internvl_vision": "InternVLVisionModel",
}
pytestmark = pytest.mark.models


def unmasked_layers(tower, inputs, name):
    """The output of each of a tower's layers, without pruning."""
    found = []
    layers = tower.get_submodule(name)
    handles = [layer.register_forward_hook(lambda *_: found.append(_[-1])) for layer in layers]
    with torch.no_grad():
        tower(**inputs)
    for handle in handles:
        handle.remove()
    return found


def at_full_length(tower, inputs, stats, absorbs):
    """Rows [N or K, D] of each image before the head: dropped ones left out, absorbed ones as their group.

    Every image goes alone through the second of two layers, which sees rows of living tokens only.
    """
    first = unmasked_layers(tower, inputs, "encoder.layers")[0]
    (stage,) = stats.stages
    rows = []
    for b, n in enumerate(stats.num_tokens):
        x = first[b, :n]
        if absorbs:
            x = torch.stack([x[stage.assignment[b] == g].mean(0) for g in stage.assignment[b]])
        else:
            x = x[stage.keep_indices[b]]
        rows.append(tower.encoder.layers[1](x[None], None))
    return rows


@pytest.mark.parametrize("method", ["drop", "absorb", "adaptive"])
@pytest.mark.parametrize("family", ["siglip_vision_model", "aimv2_vision_model", "siglip2_vision_model"])
def test_pooling_heads_read_what_was_kept(family, method):
    tower, inputs = made(family, TOWERS[family])
    with vtp(tower, **METHODS[method]), torch.no_grad():
        found, stats = tower(**inputs), vtp_stats(tower)
    norm = tower.rms_norm if family.startswith("aimv2") else tower.post_layernorm
    with torch.no_grad():
        rows = at_full_length(tower, inputs, stats, method == "absorb")
        expected = torch.cat([tower.head(norm(x)) for x in rows])
    torch.testing.assert_close(found.pooler_output, expected, **CLOSE)
    assert (tower(**inputs).pooler_output - expected).abs().max() > 1e-2  # or nothing was compared


@pytest.mark.parametrize("method", ["drop", "absorb", "adaptive"])
def test_a_classifier_of_padded_images_takes_the_mean_over_what_was_kept(method):
    model, inputs = made("siglip2", "Siglip2ForImageClassification")
    with vtp(model, **METHODS[method]), torch.no_grad():
        found, stats = model(**inputs), vtp_stats(model)
    tower = model.vision_model
    with torch.no_grad():
        images = {name: x for name, x in inputs.items() if name != "input_ids"}
        rows = at_full_length(tower, images, stats, method == "absorb")
        means = torch.cat([tower.post_layernorm(x).mean(dim=1) for x in rows])
        torch.testing.assert_close(found.logits, model.classifier(means), **CLOSE)


@pytest.mark.parametrize("method", METHODS)
def test_padded_images_keep_their_own_share_and_nothing_of_the_padding(method):
    tower, inputs = made("siglip2_vision_model", "Siglip2VisionModel")
    counts = inputs["spatial_shapes"].prod(dim=-1).tolist()
    apply_vtp(tower, **METHODS[method])
    with torch.no_grad():
        together = tower(**inputs).pooler_output
    stats = vtp_stats(tower)
    assert stats.num_tokens == counts and len(set(counts)) == 3
    if method != "adaptive":
        ratio = 0.4 if method == "two stages" else 0.5
        assert stats.num_kept == [round(ratio * n) for n in counts]
    for b, n in enumerate(counts):
        assert stats.keep_indices[b].max() < n and stats.grids[b][1:] == tuple(inputs["spatial_shapes"][b])
        # alone and without its padding
        own = {name: x[b : b + 1, :n] if x.shape[1] > 2 else x[b : b + 1] for name, x in inputs.items()}
        with torch.no_grad():
            alone = tower(**own).pooler_output
        assert torch.equal(vtp_stats(tower).keep_indices[0], stats.keep_indices[b])
        torch.testing.assert_close(alone[0], together[b], **CLOSE)


@pytest.mark.parametrize("family", ["vit", "deit", "siglip_vision_model"])
def test_interpolated_sizes_have_grids_of_their_own(family):
    tower, _ = made(family, TOWERS[family])
    images = torch.randn(2, 3, 16, 24)
    apply_vtp(tower, **METHODS["drop"])
    with torch.no_grad():
        tower(images, interpolate_pos_encoding=True)
    stats = vtp_stats(tower)
    assert stats.grids == [(1, 4, 6)] * 2 and stats.num_kept == [12, 12]


@pytest.mark.parametrize(
    "family, name, prefix",
    [
        ("deit", "DeiTModel", 2),
        ("dinov2_with_registers", "Dinov2WithRegistersModel", 5),
        ("dinov3_vit", "DINOv3ViTModel", 4),
        ("mlcd_vision_model", "MLCDVisionModel", 1),
        ("dinov2", "Dinov2Model", 1),
    ],
)
def test_attention_of_cls_is_the_towers_own_and_prefix_tokens_stay(family, name, prefix):
    changes = {"num_register_tokens": prefix - 1} if prefix > 3 else {}
    tower, inputs = made(family, name, **changes)
    tower.set_attn_implementation("eager")
    with torch.no_grad():
        seen = tower(**inputs, output_attentions=True).attentions
        full = tower(**inputs, output_hidden_states=True).hidden_states[2]
        apply_vtp(tower, scorer="cls_attention", selector="top_k", merger="drop", layer=1, keep_ratio=0.5)
        found = tower(**inputs, output_hidden_states=True).hidden_states[2]
    stage = vtp_stats(tower).stages[0]
    expected = seen[1].mean(dim=1)[:, 0, prefix:]  # [B, N]
    torch.testing.assert_close(torch.stack(stage.scores), expected, **CLOSE)
    assert torch.equal(found[:, :prefix], full[:, :prefix])
    for b, kept in enumerate(stage.keep_indices):
        assert torch.equal(found[b, prefix:], full[b, kept + prefix])


@pytest.mark.parametrize("method", ["drop", "absorb"])
@pytest.mark.parametrize("family", ["ijepa", "dinov2", "dinov2_with_registers", "metaclip_2"])
def test_classifiers_weigh_absorbed_tokens(family, method):
    names = {"ijepa": "IJepa", "dinov2": "Dinov2", "metaclip_2": "MetaClip2"}
    name = names.get(family, "Dinov2WithRegisters") + "ForImageClassification"
    model, inputs = made(family, name)
    # after the last layer, whose output the mean is taken of: kept rows, or the mean of every token
    arguments = {**METHODS[method], "layer": 1, "keep_ratio": 0.25}
    with torch.no_grad():
        plain = model(**inputs, output_hidden_states=True)
        apply_vtp(model, **arguments)
        found, stats = model(**inputs).logits, vtp_stats(model)
    tower = getattr(model, "vision_model", None) or getattr(model, family)
    norm = getattr(tower, "layernorm", torch.nn.Identity())
    (stage,), last = stats.stages, plain.hidden_states[-1]
    prefix = last.shape[1] - stats.num_tokens[0]
    pooled = []
    for b, row in enumerate(last):
        patches, groups, kept = row[prefix:], stage.assignment[b], stage.keep_indices[b]
        if method == "absorb":
            patches = torch.stack([patches[groups == g].mean(0) for g in groups])
        else:
            patches = patches[kept]
        mean = norm(patches).mean(0)
        pooled.append(torch.cat([norm(row)[0], mean]) if family.startswith("dinov2") else mean)
    with torch.no_grad():
        torch.testing.assert_close(found, model.classifier(torch.stack(pooled)), **CLOSE)


def test_a_mask_of_the_caller_is_narrowed_with_the_tokens():
    tower, inputs = made("vit", "ViTModel")
    if not hasattr(tower.layers[0], "attention"):
        pytest.skip("ViT of this Transformers takes no mask")
    mask = torch.ones(2, 17, dtype=torch.long)
    mask[0, 5:9] = mask[1, 12:] = 0
    images = inputs["pixel_values"]
    with torch.no_grad():
        first = unmasked_layers(tower, {**inputs, "attention_mask": mask}, "layers")[0]
        for method in ("drop", "absorb"):
            with vtp(tower, **METHODS[method]):
                found, stats = tower(images, attention_mask=mask).last_hidden_state, vtp_stats(tower)
            (stage,) = stats.stages
            for b, kept in enumerate(stage.keep_indices):
                x, there, weight = first[b], mask[b, 1:][kept] > 0, stage.sizes[b].log()
                if method == "absorb":
                    groups = stage.assignment[b]
                    rows = torch.stack([x[1:][groups == g].mean(0) for g in range(len(kept))])
                else:
                    rows = x[1:][kept]
                bias = torch.nn.functional.pad(weight.masked_fill(~there, -1e30), (1, 0))[None, None, None]
                x = torch.cat([x[:1], rows])[None]
                expected = tower.layernorm(tower.layers[1](x, bias.expand(-1, -1, x.shape[1], -1)))
                torch.testing.assert_close(found[b], expected[0], **CLOSE)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["drop", "absorb", "default"])
@pytest.mark.parametrize("family", TOWERS)
def test_gradients_are_finite_and_the_same_checkpointed(family, method, checkpointing):
    gradients = []
    for on in (False, checkpointing):
        tower, inputs = made(family, TOWERS[family])
        apply_vtp(tower, **METHODS[method])
        tower.train()
        if on:
            tower.gradient_checkpointing_enable()
        torch.manual_seed(0)  # DINOv3 moves its rotary positions at random in training
        images = inputs["pixel_values"].requires_grad_()
        output = tower(**inputs)
        loss = sum(x.square().mean() for x in tensors(output))
        try:
            loss.backward()
        except NotImplementedError as error:
            assert on and "hands no arguments down" in str(error)
            return
        gradients.append([images.grad] + [p.grad for p in tower.parameters() if p.grad is not None])
        assert all(x.isfinite().all() for x in gradients[-1])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("family, method", [("siglip_vision_model", "drop"), ("dinov2", "drop")])
def test_towers_compile_as_one_graph(family, method):
    torch.compiler.reset()
    tower, inputs = made(family, TOWERS[family])
    apply_vtp(tower, **METHODS[method])
    with torch.no_grad():
        expected = tower(**inputs)
        kept = vtp_stats(tower).keep_indices
        found = torch.compile(tower, fullgraph=True, backend="aot_eager")(**inputs)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, **CLOSE)
    torch.testing.assert_close(found.pooler_output, expected.pooler_output, **CLOSE)
    assert all(map(torch.equal, kept, vtp_stats(tower).keep_indices))
    torch.compiler.reset()


def test_a_tower_inside_another_model_compiles():
    torch.compiler.reset()
    model, inputs = made("siglip", "SiglipForImageClassification")
    images = {"pixel_values": inputs["pixel_values"]}
    apply_vtp(model, **METHODS["absorb"])
    with torch.no_grad():
        expected = model(**images).logits
        found = torch.compile(model, fullgraph=True, backend="eager")(**images).logits
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.compiler.reset()


@pytest.mark.parametrize("family", TOWERS)
def test_removal_leaves_nothing(family):
    tower, inputs = made(family, TOWERS[family])
    with torch.no_grad():
        held = tower(**inputs)
        before = state(tower)
        apply_vtp(tower, **METHODS["absorb"])
        assert not same(tower(**inputs), held)
        remove_vtp(tower)
        assert state(tower) == before and same(tower(**inputs), held)


@pytest.mark.parametrize("family", ["internvl_vision", "siglip2_vision_model"])
def test_threads_do_not_meet(family):
    tower, inputs = made(family, TOWERS[family])
    apply_vtp(tower, **METHODS["absorb"])
    images = [inputs["pixel_values"] * factor for factor in (1.0, -2.0, 0.5)]
    run = torch.no_grad()(lambda x: tower(**{**inputs, "pixel_values": x}).last_hidden_state)
    expected, found = [run(x) for x in images], {}

    def work(i):
        found[i] = [run(images[i]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(x, expected[i]) for i in range(3) for x in found[i])


def test_what_needs_a_token_for_every_patch_is_refused():
    from transformers import (
        Dinov2Backbone,
        Dinov2Config,
        ViTConfig,
        ViTForMaskedImageModeling,
    )

    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    for model in (Dinov2Backbone(Dinov2Config(**sizes)), ViTForMaskedImageModeling(ViTConfig(**sizes))):
        with pytest.raises(ValueError, match="a token for every patch"):
            apply_vtp(model)
