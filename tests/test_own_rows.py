"""Families of one's own: a row is registered, and the model is pruned as any other."""

import pytest
import torch
from models import state
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from vlm import Llava

from hf_vtp import (
    FamilyRow,
    TowerRow,
    apply_vtp,
    list_families,
    register_family,
    register_tower,
    remove_vtp,
    vtp_stats,
)
from hf_vtp.families import table


class OwnConfig(PretrainedConfig):
    model_type = "own_vit"
    hidden_size, num_attention_heads, patch_size = 16, 2, 4


class OwnAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.num_heads = config, config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, hidden_states, attention_mask=None):
        split = [
            p(hidden_states).unflatten(-1, (2, 8)).transpose(1, 2) for p in (self.query, self.key, self.value)
        ]
        return (
            nn.functional.scaled_dot_product_attention(*split, attn_mask=attention_mask)
            .transpose(1, 2)
            .flatten(2)
        )


class OwnLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attend = OwnAttention(config)

    def forward(self, hidden_states, attention_mask=None):
        return hidden_states + self.attend(hidden_states, attention_mask)


class OwnVit(PreTrainedModel):
    """Three registers in front, blocks under a name of its own, queries and keys too."""

    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.registers = nn.Parameter(torch.randn(3, 16))
        self.stem = nn.ModuleDict({"blocks": nn.ModuleList(OwnLayer(config) for _ in range(4))})

    def forward(self, pixel_values, attention_mask=None):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.registers.expand(len(x), -1, -1), x], dim=1)
        for block in self.stem["blocks"]:
            x = block(x, attention_mask)
        return BaseModelOutput(last_hidden_state=x)


@pytest.fixture
def tables(monkeypatch):
    for name in ("TOWERS", "VISION", "FAMILIES"):
        monkeypatch.setattr(table, name, dict(getattr(table, name)))


ROW = TowerRow("stem.blocks", "attend", "query key value", prefix=3, cls=False)


def own_vit():
    torch.manual_seed(0)
    return OwnVit(OwnConfig()).eval()


def test_a_tower_of_ones_own_drops_what_a_mask_hides(tables):
    register_tower("own_vit", ROW)
    model, twin, pixels = own_vit(), own_vit(), torch.randn(2, 3, 16, 16)
    apply_vtp(model, keep_ratio=0.5, layer=1, method="qk_topk")
    pruned, keep = model(pixels).last_hidden_state, vtp_stats(model).keep_indices
    alive = torch.zeros(2, 1, 1, 19, dtype=torch.bool)
    alive[..., :3] = True
    for b, kept in enumerate(keep):
        alive[b, 0, 0, kept + 3] = True

    def mask(module, args):
        return args[0], alive

    for block in twin.stem["blocks"][2:]:
        block.register_forward_pre_hook(mask)
    full = twin(pixels).last_hidden_state
    for b, kept in enumerate(keep):
        rows = torch.cat([torch.arange(3), kept + 3])
        torch.testing.assert_close(pruned[b], full[b, rows], atol=1e-5, rtol=0)


def test_absorbed_tokens_weigh_there_too(tables):
    register_tower("own_vit", ROW)
    model, pixels = apply_vtp(own_vit(), keep_ratio=0.5, layer=1), torch.randn(2, 3, 16, 16)
    weighed = model(pixels).last_hidden_state
    apply_vtp(model, keep_ratio=0.5, layer=1, merger_options={"lloyd": 0}, merger="drop")
    assert not torch.allclose(weighed, model(pixels).last_hidden_state)


def test_undo_and_ratio_one_hold_there(tables):
    register_tower("own_vit", ROW)
    model, pixels = own_vit(), torch.randn(2, 3, 16, 16)
    before, plain = state(model), model(pixels).last_hidden_state
    apply_vtp(model, keep_ratio=1.0)
    assert torch.equal(model(pixels).last_hidden_state, plain)
    apply_vtp(model, keep_ratio=0.3)
    assert model(pixels).last_hidden_state.shape[1] == 3 + 5
    remove_vtp(model)
    assert torch.equal(model(pixels).last_hidden_state, plain) and state(model) == before


def test_without_a_row_it_is_refused_and_the_sentence_names_the_model_types_there_are(tables):
    with pytest.raises(ValueError, match="OwnVit .*'own_vit'.* cannot be pruned.*'clip'"):
        apply_vtp(own_vit())


class OwnLlavaConfig(LlavaConfig):
    model_type = "own_llava"


def test_a_family_of_ones_own_is_pruned_as_its_row_says(tables):
    register_family("own_llava", FamilyRow("vision_tower", "multi_modal_projector"))
    assert list_families()["own_llava"]["where"] == "in the tower"
    model, inputs = Llava.model(), Llava.inputs((1, 2))
    own = LlavaForConditionalGeneration(
        OwnLlavaConfig(**model.config.to_dict() | {"model_type": "own_llava"})
    )
    own.load_state_dict(model.state_dict())
    own.eval()
    for pruned in (model, own):
        apply_vtp(pruned, keep_ratio=0.4, layer=1)
    assert torch.equal(own(**inputs).logits, model(**inputs).logits)


def test_a_second_row_for_a_model_type_is_refused(tables):
    with pytest.raises(ValueError, match="'clip_vision_model' has a row already"):
        register_tower("clip_vision_model", ROW)
    with pytest.raises(ValueError, match="'llava' has a row already"):
        register_family("llava", FamilyRow())


def test_timm_is_refused_with_the_reason():
    kind = type("VisionTransformer", (nn.Module,), {"__module__": "timm.models.vision_transformer"})
    with pytest.raises(ValueError, match="VisionTransformer .* cannot be pruned; timm's towers pool inside"):
        apply_vtp(kind())
