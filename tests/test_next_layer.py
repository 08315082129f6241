"""Methods that read the layer after a stage see what that layer would make of the stage's states."""

import pytest
import torch
from families import LANGUAGE, MODELS, made
from models import clip_vision, pixels
from test_own_rows import ROW, own_vit, tables  # noqa: F401  (a fixture)

from hf_vtp import apply_vtp, register_tower, vtp_stats
from hf_vtp.apply import applied
from hf_vtp.families.table import FAMILIES, has_row
from hf_vtp.towers.states import NEXT

pytestmark = pytest.mark.models
ONE_HEAD = dict(method="fastervlm", scorer="one_head_attention")
# one class of every family whose tower has a row
FIRST = {model_type: name for model_type, name in reversed(MODELS)}
ROWS = [model_type for model_type in FIRST if model_type not in LANGUAGE or FAMILIES[model_type].tower]


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def hooked(modules):
    """What modules return the first time from now on, by name."""
    found = {}

    def keep(name, output):
        found.setdefault(name, output)

    for name, module in modules.items():
        module.register_forward_hook(lambda _, args, output, name=name: keep(name, output))
    return found


def one_head(found):
    """Attention of [CLS] to all, of queries and keys [B, L, D] of all heads side by side."""
    query, key = found["full_query"][:, :1], found["full_key"]
    return (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(dim=-1)[:, 0, 1:]


@pytest.mark.parametrize("model_type", ROWS)
def test_it_is_what_the_next_layer_computes_in_every_tower(model_type):
    model, inputs = made(model_type, FIRST[model_type])
    if not has_row(model):
        pytest.skip("no row says where the layers of its tower are")
    apply_vtp(model, method="prumerge", merger="knn_weighted", layer=0, keep_ratio=1.0)
    tower = applied(model).tower
    first, later = (hooked({"": tower.layers[0]}), hooked(tower.projections(tower.layers[1])))
    model(**inputs)
    states = first[""][0] if isinstance(first[""], tuple) else first[""]
    found = tower.of_next_layer(0, states)
    assert {name.removeprefix(NEXT) for name in found} == later.keys() - {"full_value"}
    for name, x in found.items():
        torch.testing.assert_close(x, later[name.removeprefix(NEXT)])
    assert tower.of_next_layer(len(tower.layers) - 1, states) == {}


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_scores_are_the_next_layers_attention_and_after_the_last_its_own(stage):
    model = clip_vision()
    apply_vtp(model, method="prumerge", layer=stage)
    tower = applied(model).tower
    twin = clip_vision()
    layer = twin.encoder.layers[min(stage + 1, 3)]
    found = hooked(tower.projections(layer))
    twin(pixels(3))
    model(pixels(3))
    torch.testing.assert_close(torch.stack(vtp_stats(model).stages[0].scores), one_head(found))


def test_a_later_stage_sees_what_the_next_layer_makes_of_the_tokens_that_are_left():
    model, twin = clip_vision(), clip_vision()
    apply_vtp(model, layer=[0, 1], keep_ratio=[0.5, 0.25], **ONE_HEAD)
    apply_vtp(twin, layer=0, keep_ratio=0.5, **ONE_HEAD)
    found = hooked(applied(model).tower.projections(twin.encoder.layers[2]))
    twin(pixels(2))
    model(pixels(2))
    assert found["full_key"].shape == (2, 19, 32)
    torch.testing.assert_close(torch.stack(vtp_stats(model).stages[1].scores), one_head(found))


def test_a_tower_whose_norm_is_not_known_is_refused(tables):  # noqa: F811
    register_tower("own_vit", ROW)
    with pytest.raises(ValueError, match="reads queries and keys of the next layer.* an attention_norm$"):
        apply_vtp(own_vit(), method="prumerge")
