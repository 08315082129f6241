"""Gradients through a pruned CLIP, with and without checkpointing."""

import pytest
import torch
from models import IMAGE_METHODS, clip_vision, pixels

import hf_vtp
from hf_vtp import apply_vtp, vtp_stats
from hf_vtp.methods.scorers import SCORERS

CLOSE = dict(atol=1e-5, rtol=1e-5)
pytestmark = pytest.mark.models


@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_gradients_reach_kept_tokens_and_are_finite(method):
    model = apply_vtp(clip_vision(), keep_ratio=0.4, layer=[0, 2], method=method).train()
    images = pixels().requires_grad_()
    model(images).pooler_output.square().sum().backward()
    assert images.grad.isfinite().all()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "post_layernorm" not in name:
            assert parameter.grad is None or parameter.grad.isfinite().all()
    by_patch = images.grad.unfold(2, 4, 4).unfold(3, 4, 4).abs().sum(dim=(1, 4, 5)).flatten(1)  # [B, 36]
    for b, kept in enumerate(vtp_stats(model).keep_indices):
        assert (by_patch[b, kept] > 0).all()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("merger", ["drop", "absorb"])
def test_checkpointed_gradients_are_the_plain_ones(reentrant, merger):
    generator = torch.Generator()

    def private(tokens):
        return torch.rand(tokens.shape, generator=generator)  # another draw at every call

    hf_vtp.register_scorer("private")(private)
    try:
        gradients = []
        for checkpointing in (False, True):
            generator.manual_seed(0)
            model = clip_vision().train()
            if checkpointing:
                model.gradient_checkpointing_enable(
                    gradient_checkpointing_kwargs={"use_reentrant": reentrant}
                )
            apply_vtp(model, scorer="private", selector="top_k", merger=merger, layer=[0, 2], keep_ratio=0.3)
            images = [pixels(seed=s).requires_grad_() for s in (1, 2)]
            losses = [model(x).last_hidden_state.square().mean() for x in images]
            sum(losses).backward()
            gradients.append([x.grad for x in images] + [p.grad for p in model.encoder.parameters()])
        assert all(g is not None and g.isfinite().all() for g in gradients[0])
        for plain, checkpointed in zip(*gradients, strict=True):
            torch.testing.assert_close(checkpointed, plain, **CLOSE)
    finally:
        del SCORERS["private"]
