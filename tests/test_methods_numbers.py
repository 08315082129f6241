"""Models in float64, other default dtypes, forwards on the meta device, where nothing can be waited for."""

from functools import partial

import pytest
import torch
from models import IMAGE_METHODS, clip_vision, pixels
from vlm import FAMILIES, Llava

from hf_vtp import VTPConfig, apply_vtp, list_methods, vtp, vtp_stats
from hf_vtp.apply import applied
from hf_vtp.pruning.stage import adaptive

FIXED = [name for name in IMAGE_METHODS if list_methods()[name]["keep_ratio"] == "exact"]
COUNTED = [name for name in list_methods() if adaptive(VTPConfig(method=name))]
WITH_NUMBERS = ["vtp", "hiprune", "zero_tprune", "gtp", "cdpruner"]  # what else makes numbers of its own
COUNTED_IMAGES = [name for name in COUNTED if name in IMAGE_METHODS]


@pytest.fixture
def default_dtype():
    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


def in_clip(dtype):
    model, images = clip_vision().to(dtype), pixels(2).to(dtype)
    return model, lambda: model(images)


def in_family(family, dtype):
    model, inputs = FAMILIES[family].model().to(dtype), FAMILIES[family].inputs((1, 0, 2))
    inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in inputs.items()}
    return model, lambda: model(**inputs)


def choices(model, run, method):
    with vtp(model, method=method, keep_ratio=0.4), torch.no_grad():
        run()
        stats = vtp_stats(model)
    for stage in stats.stages:
        assert all(x.dtype == torch.float32 for x in [*stage.sizes, *stage.scores] if x is not None), method
    return [[kept.tolist() for kept in stage.keep_indices] for stage in stats.stages]


@pytest.mark.parametrize("family", ["clip", "llava", "qwen2_5_vl"])
def test_every_dtype_chooses_the_same(family, default_dtype):
    """Whatever the model's dtype and torch's default are; float64 states are those of float32 made wider."""
    methods = IMAGE_METHODS if family == "clip" else COUNTED + WITH_NUMBERS
    of = in_clip if family == "clip" else partial(in_family, family)
    single, double = of(torch.float32), of(torch.float64)
    expected = {name: choices(*single, name) for name in methods}
    for default, call in ((torch.float32, double), (torch.float64, single), (torch.float64, double)):
        default_dtype(default)
        for name in methods:
            assert choices(*call, name) == expected[name], (name, default)


@pytest.mark.parametrize("merger", ["absorb", "knn_weighted", "contextual", "propagate", "many_to_many"])
@pytest.mark.parametrize("selector", ["threshold", "mass", "iqr", "entropy"])
def test_padding_is_masked_in_float64(selector, merger):
    """Rows that keep fewer tokens than their neighbours are what they are alone."""
    model = clip_vision().double()
    apply_vtp(model, method="fastervlm", selector=selector, merger=merger, layer=[0, 2], keep_ratio=0.5)
    images = pixels(3).double() * torch.tensor([0.1, 1.0, 4.0]).double()[:, None, None, None]
    with torch.no_grad():
        whole = model(images).pooler_output
        alone = torch.cat([model(images[b : b + 1]).pooler_output for b in range(3)])
    torch.testing.assert_close(whole, alone, atol=1e-6, rtol=1e-6)  # scores and merging are float32


@pytest.mark.parametrize("method", FIXED)
def test_a_tower_with_fixed_counts_runs_on_the_meta_device(method):
    """Where a tensor has no content, so that nothing there can depend on one: no host waits for a device."""
    model = apply_vtp(clip_vision().to("meta"), method=method, keep_ratio=0.4)
    output = model(pixels(2).to("meta")).last_hidden_state
    assert output.is_meta and output.shape == (2, 1 + round(0.4 * 36), 32)
    model = apply_vtp(Llava.model().to("meta"), method=method, keep_ratio=0.4)
    features = model.model.get_image_features(pixels(2).to("meta"), return_dict=True).pooler_output
    assert [x.shape for x in features] == [(36, 32)] * 2 and features[0].is_meta  # a row for each placeholder
    groups = list(applied(model).tower.last.stages.values())[-1]
    assert [group.positions.shape for group in groups] == [(2, 14)]


@pytest.mark.parametrize("method", COUNTED_IMAGES)
def test_counts_that_follow_the_image_are_refused_on_the_meta_device(method):
    model = apply_vtp(clip_vision().to("meta"), method=method, keep_ratio=0.4)
    with pytest.raises(
        NotImplementedError, match="on the meta device there is none; choose a method"
    ) as error:
        model(pixels(2).to("meta"))
    assert method in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["vtp", *COUNTED])
def test_so_are_prompts(method):
    model = apply_vtp(Llava.model().to("meta"), method=method, keep_ratio=0.4)
    inputs = {name: x.to("meta") for name, x in Llava.inputs((1, 0)).items()}
    with pytest.raises(
        NotImplementedError, match="depends on its ids, and on the meta device there are none"
    ):
        model(**inputs)
