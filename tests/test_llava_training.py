"""LLaVA in training: a pruned model's gradients are those of the full model with dropped tokens masked."""

from types import SimpleNamespace

import pytest
import torch
from lora import with_lora
from oracles import masked_clip, replicated_clip
from vlm import IMAGE, Llava, expected_rows

from hf_vtp import apply_vtp, register_scorer, vtp_stats
from hf_vtp.methods.scorers import SCORERS

pytestmark = pytest.mark.models
DROP = dict(method="qk_topk", layer=1, keep_ratio=0.4)
ABSORB = dict(method="vtp", layer=1, keep_ratio=0.4)
TWO_STAGES = dict(method="qk_topk", layer=[0, 1], keep_ratio=[0.7, 0.3])
METHODS = pytest.mark.parametrize(
    "arguments", [DROP, TWO_STAGES, ABSORB], ids=["drop", "two stages", "absorb"]
)


def batch(rows=(1, 0, 2), seed=1):
    inputs = Llava.inputs(rows, seed=seed)
    return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}


def full_loss(model, inputs, stats):
    """The loss of an unpatched model that keeps every token, with those that left masked (or replicated)."""
    inner, ids = model.model, inputs["input_ids"]
    tower = inner.vision_tower
    read = SimpleNamespace(  # LLaVA reads the state before the tower's last layer
        embeddings=tower.embeddings,
        pre_layrnorm=tower.pre_layrnorm,
        encoder=SimpleNamespace(layers=tower.encoder.layers[:-1]),
    )
    if any((group >= 0).all() for stage in stats.stages for group in stage.assignment):
        state, _ = replicated_clip(
            read, inputs["pixel_values"], {s.layer: s.assignment for s in stats.stages}
        )
    else:
        state = masked_clip(read, inputs["pixel_values"], {s.layer: s.keep_indices for s in stats.stages})[-1]
    features = inner.multi_modal_projector(state[:, 1:])  # [images, 36, D]
    embeds = inner.get_input_embeddings()(ids)
    embeds = embeds.masked_scatter((ids == IMAGE)[..., None], features.to(embeds.dtype))
    dropped = torch.ones(len(features), 36, dtype=torch.bool)
    for image, kept in enumerate(stats.keep_indices):
        dropped[image, kept] = False
    alive = inputs["attention_mask"].masked_scatter(ids == IMAGE, 1 - dropped.flatten().long())
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    hidden = inner.language_model(inputs_embeds=embeds, attention_mask=alive, position_ids=positions)[0]
    logits = expected_rows(model.lm_head(hidden), alive)
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(actual, expected, relative=1e-4):
    """Finite, and apart by no more than `relative` of each parameter's largest; none is zero."""
    assert actual.keys() == expected.keys() and actual
    for name, gradient in expected.items():
        scale = gradient.abs().max()
        assert scale > 1e-6, f"{name} has no gradient to compare"
        assert (actual[name] - gradient).abs().max() <= relative * scale, name  # False for a NaN too


def trainable(names):
    return {
        part: sum(part in name for name in names) for part in ("vision_tower", "projector", "language_model")
    }


@METHODS
def test_a_lora_step_is_the_masked_models(arguments):
    """Two steps on different batches: loss, gradients and the weights they lead to."""
    model, twin = apply_vtp(with_lora(Llava.model()), **arguments).train(), with_lora(Llava.model()).train()
    optimizers = [
        torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.02) for m in (model, twin)
    ]
    for rows, seed in ((1, 0, 2), 1), ((2, 1), 2):
        inputs = batch(rows, seed)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        expected = full_loss(twin.get_base_model(), inputs, vtp_stats(model))
        expected.backward()
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        assert_same_gradients(gradients(model), gradients(twin))
        for optimizer in optimizers:
            optimizer.step()
    counts = trainable(gradients(model))
    # A and B of q, k, v in the three layers that are read, of both linears, of q, k, v, o in three layers
    assert counts == {"vision_tower": 18, "projector": 4, "language_model": 24}
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4, msg=name)


def test_every_parameter_of_an_unfrozen_model():
    """Full fine-tuning, embeddings and the patch convolution included; pixels get a gradient as well."""
    model, twin, inputs = apply_vtp(Llava.model(), **DROP).train(), Llava.model().train(), batch()
    both = []
    for m in (model, twin):
        told = {**inputs, "pixel_values": inputs["pixel_values"].clone().requires_grad_()}
        (m(**told).loss if m is model else full_loss(m, told, vtp_stats(model))).backward()
        both.append(gradients(m) | {"pixels": told["pixel_values"].grad})
        # softmax does not see a constant in its logits: a key bias's gradient is what rounding leaves of zero
        both[-1] = {k: v for k, v in both[-1].items() if "k_proj.bias" not in k}
    never = [name for name in both[1] if not both[1][name].any()]
    assert all(not both[0].pop(name).any() for name in never)
    assert_same_gradients(both[0], {name: g for name, g in both[1].items() if name not in never})


def test_dropped_tokens_have_no_influence():
    """No gradient reaches what a stage drops; every token that it keeps has one."""
    model, inputs = (
        apply_vtp(Llava.model(), method="uniform", layer=0, keep_ratio=0.25).train(),
        batch((1, 1)),
    )
    layer = model.model.vision_tower.encoder.layers[0]
    states = []
    handle = layer.mlp.register_forward_hook(lambda m, a, output: states.append(output))
    output = model(**inputs)
    states[0].retain_grad()
    output.loss.backward()
    handle.remove()
    for image, kept in enumerate(vtp_stats(model).keep_indices):
        dropped = torch.ones(37, dtype=torch.bool)
        dropped[kept + 1] = dropped[0] = False
        assert not states[0].grad[image, dropped].any()
        assert states[0].grad[image, kept + 1].any(dim=-1).all()


@METHODS
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_gradients_are_the_plain_ones(arguments, reentrant):
    both = []
    for checkpointed in (False, True):
        model = with_lora(Llava.model())
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            model.enable_input_require_grads()  # or nothing in a reentrant block would have a gradient
        apply_vtp(model, **arguments).train()
        losses = [
            model(**batch(seed=seed)).loss for seed in (1, 2)
        ]  # two forwards, then both of their replays
        sum(losses).backward()
        both.append(gradients(model))
    assert_same_gradients(both[1], both[0])
    assert trainable(both[1]) == {"vision_tower": 18, "projector": 4, "language_model": 24}


def test_checkpointed_replays_keep_the_choice_of_their_forward():
    """A scorer that draws anew at every call: a replay that scored again would train other tokens."""
    generator, both = torch.Generator(), []

    def drawn(tokens):
        return torch.rand(tokens.shape, generator=generator)

    register_scorer("drawn")(drawn)
    try:
        for checkpointed in (False, True):
            generator.manual_seed(0)
            model = with_lora(Llava.model())
            if checkpointed:
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            apply_vtp(model, scorer="drawn", **{**TWO_STAGES, "merger": "absorb"}).train()
            losses = [model(**batch(seed=seed)).loss for seed in (1, 2)]
            sum(losses).backward()
            both.append(gradients(model))
    finally:
        del SCORERS["drawn"]
    assert_same_gradients(both[1], both[0])


@METHODS
def test_checkpointed_gradients_are_the_masked_models(arguments):
    model, twin = with_lora(Llava.model()), with_lora(Llava.model())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    apply_vtp(model, **arguments).train()
    model(**batch()).loss.backward()
    full_loss(twin.get_base_model(), batch(), vtp_stats(model)).backward()
    assert_same_gradients(gradients(model), gradients(twin))


@METHODS
def test_lora_before_and_after_have_the_same_gradients(arguments):
    before = apply_vtp(with_lora(Llava.model()), **arguments).train()
    after = with_lora(apply_vtp(Llava.model(), **arguments)).train()
    for model in (before, after):
        model(**batch()).loss.backward()
    assert_same_gradients(gradients(after), gradients(before), relative=0.0)


def test_bfloat16_autocast_gradients_are_the_masked_models():
    model, twin = apply_vtp(with_lora(Llava.model()), **DROP).train(), with_lora(Llava.model()).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch()).loss.backward()
        full_loss(twin.get_base_model(), batch(), vtp_stats(model)).backward()
    near, exact = gradients(model), gradients(twin)
    flat = [torch.cat([g[name].flatten() for name in exact]) for g in (near, exact)]
    assert near.keys() == exact.keys() and flat[0].isfinite().all()
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.99
