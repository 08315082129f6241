"""hf_vtp.verify: all checks hold on sound models, whatever the config and the batch."""

import pytest
import torch
from models import clip, clip_inputs
from qwen import VIDEO
from vlm import FAMILIES, Llava, Qwen

from hf_vtp import differences
from hf_vtp import verify as verify_fully
from hf_vtp.verifying import full_tower

pytestmark = pytest.mark.models
DROP = dict(method="qk_topk", keep_ratio=0.5)
CONFIGS = {
    "drop": DROP,
    "absorb": dict(keep_ratio=0.5),
    "means": dict(keep_ratio=0.5, merger="absorb"),
    "adaptive": dict(method="dynamic"),
    "output": dict(keep_ratio=0.4, layer="output"),
    "compact": dict(DROP, positions="compact"),
    "two stages": dict(keep_ratio=[0.7, 0.4], layer=[0, 2]),
    "merger of its own": dict(method="visionzip", layer=1, keep_ratio=0.4),
}
CLIP_CONFIGS = [name for name in CONFIGS if name not in ("output", "compact")]


def verify(*args, **kwargs):
    return verify_fully(*args, max_new_tokens=3, **kwargs)


def verdicts(report):
    """Names of the checks by verdict."""
    return {v: {c.name for c in report.checks if c.holds is v} for v in (True, False, None)}


def assert_all_hold(report, *not_applying):
    found = verdicts(report)
    assert found[False] == set() and report.holds, report.table()
    assert found[None] == set(not_applying), report.table()
    for check in report.checks:
        assert check.holds is None or check.figure <= check.bound


@pytest.mark.parametrize("config", CLIP_CONFIGS)
@pytest.mark.parametrize("name", ["CLIPModel", "CLIPForImageClassification"])
def test_all_checks_hold_on_clip(name, config):
    report = verify(clip(name), clip_inputs(name), **CONFIGS[config])
    weighs = config in ("absorb", "means", "two stages")
    assert_all_hold(report, "tower" if weighs else "absorbed", "prompt rounding", "prompt", "generate")
    assert 0 < report["absorbed" if weighs else "tower"].figure < 1e-5


@pytest.mark.parametrize("name", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_all_checks_hold_on_the_vision_side_alone_and_one_image(name):
    report = verify(clip(name), clip_inputs(name, batch=1), keep_ratio=0.5)
    assert_all_hold(report, "tower", "prompt rounding", "prompt", "generate")
    assert "mirror" in report["batch"].detail


@pytest.mark.parametrize("config", CONFIGS)
def test_all_checks_hold_on_llava(config):
    report = verify(Llava.model(), Llava.inputs(), **CONFIGS[config])
    weighs = config in ("absorb", "means", "two stages", "output")
    assert_all_hold(report, "tower" if weighs else "absorbed")


@pytest.mark.parametrize("config", ["drop", "absorb", "adaptive", "compact", "two stages"])
def test_all_checks_hold_on_qwen(config):
    report = verify(Qwen.model(), Qwen.inputs(), **CONFIGS[config])
    assert_all_hold(report, "absorbed")
    assert report["generate"].detail.startswith("9 of 9 tokens")


@pytest.mark.parametrize("config", ["absorb", "adaptive"])
def test_all_checks_hold_on_videos(config):
    inputs = Qwen.inputs((1, 2), grids=[(2, 8, 8), (3, 4, 8)], media=VIDEO)
    inputs["second_per_grid_ts"] = torch.tensor([1.0, 2.0, 0.5])
    assert_all_hold(verify(Qwen.model(), inputs, **CONFIGS[config]), "absorbed")


def test_all_checks_hold_on_images_and_a_video_in_one_batch():
    images, video = (
        Qwen.inputs((1, 2), side="left"),
        Qwen.inputs((1,), grids=[(2, 8, 8)], media=VIDEO, seed=3),
    )
    rows = [row[row != 0].tolist() for row in (*images["input_ids"], *video["input_ids"])]
    inputs = {**images, **video, **Qwen.padded([[*rows[2], *rows[0]], rows[1]])}
    assert_all_hold(verify(Qwen.model(), inputs, **DROP), "absorbed")


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_one_row_is_compared_with_itself_beside_another(family):
    report = verify(FAMILIES[family].model(), FAMILIES[family].inputs((2,)), **DROP)
    assert_all_hold(report, "absorbed")
    assert "the only row" in report["batch"].detail


def test_rows_padded_on_the_right_are_checked_but_not_generated_from():
    report = verify(Llava.model(), Llava.inputs((2, 1), side="right"), **DROP)
    assert_all_hold(report, "absorbed", "generate")
    assert "padded on the left only" in report["generate"].detail


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_prompt_that_ends_in_an_image_is_checked_but_not_generated_from(family):
    report = verify(FAMILIES[family].model(), FAMILIES[family].ending_in_an_image(), **DROP)
    assert_all_hold(report, "absorbed", "generate")
    assert "ends in a placeholder" in report["generate"].detail


def test_a_model_without_a_head_and_one_without_a_mask():
    inputs = {k: v for k, v in Llava.inputs((1,)).items() if k != "attention_mask"}
    assert_all_hold(verify(Llava.model().model, inputs, **DROP), "absorbed", "generate")


def test_several_layers_read_and_the_class_token_among_the_features():
    model = Llava.model(vision_feature_layer=[-3, -2], vision_feature_select_strategy="full")
    inputs = Llava.inputs(per_image=37)
    assert_all_hold(verify(model, inputs, layer=0, **DROP), "absorbed")


def test_low_precision_is_measured_by_its_own_rounding():
    report = verify(Llava.model().bfloat16(), Llava.inputs((2,)), **DROP)
    assert report.dtype == "bfloat16" and report["prompt rounding"].figure > 1e-3, report.table()
    assert all(report[name].holds for name in ("undo", "ratio 1.0", "tower", "prompt", "generate"))
    low, high = differences.TOLERANCE["bfloat16"]
    assert low <= report["prompt"].bound <= high


def test_a_tower_without_a_reference_leaves_its_checks_out(monkeypatch):
    monkeypatch.setattr(full_tower, "FULL", {})
    report = verify(Llava.model(), Llava.inputs((1, 2)), **DROP)
    assert_all_hold(report, "tower rounding", "tower", "absorbed")
    assert "no reference at full length for a PlainTower" in report["tower"].detail
    report = verify(clip("CLIPModel"), clip_inputs("CLIPModel"), **DROP)
    assert {c.name for c in report.checks if c.holds} == {"undo", "ratio 1.0", "batch"} and report.holds


def test_labels_and_tuples_do_not_matter():
    model, inputs = Llava.model(), Llava.inputs((1, 2))
    model.config.return_dict = False
    assert_all_hold(verify(model, {**inputs, "labels": inputs["input_ids"]}, **DROP), "absorbed")
    assert model.config.return_dict is False
