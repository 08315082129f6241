"""What tune tries by default, its refusals, and its command."""

import json

import pytest
import torch
from evaluation import run_script, save_classes, save_clip, save_qwen
from models import clip, pixels
from PIL import Image
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, tune
from hf_vtp.tuning import api

pytestmark = pytest.mark.models
FLOPS = {"progress": False, "by": "flops"}


def prompts_of(num):
    return [Llava.inputs((1, 2), seed=i) for i in range(num)]


def test_fields_that_all_candidates_share():
    config, report = tune(
        Llava.model(),
        prompts_of(9),
        0.3,
        layers=[0],
        methods=["vtp"],
        positions="compact",
        min_keep=3,
        **FLOPS,
    )
    assert (config.positions, config.min_keep) == ("compact", 3)
    assert all(trial.config.positions == "compact" for trial in report.trials)


def test_default_places_are_fit_for_the_family():
    base = VTPConfig()
    found = {c.layer for c in api.make_candidates(clip("CLIPModel"), ["vtp", "tome"], None, ["linear"], base)}
    assert found == {None, (1, 2, 3), (0, 1, 2), 1, 2}
    found = api.make_candidates(Llava.model(), ["vtp"], None, ["geometric", "linear"], base)
    assert [str(c) for c in found] == [
        *("vtp layer own", "vtp layer 0,1,2 geometric", "vtp layer 0,1,2 linear"),
        *("vtp layer 1", "vtp layer 2", "vtp layer output"),
    ]  # layer 3 is beyond what LLaVA reads
    assert found[0].config(0.25).keep_ratio == 0.25
    assert found[1].config(0.25).keep_ratio == [0.63, 0.3969, 0.25]
    assert found[2].config(0.25).keep_ratio == [0.75, 0.5, 0.25]


PICTURES = [Image.new("RGB", (24, 24))] * 12
WRONG = [  # images, target, options, what the error says
    (pixels(12), 1.0, {}, "target must be a number between 0 and 1"),
    (pixels(12), "high", {}, "target must be"),
    (pixels(12), 0.9, {"confidence": 1}, "confidence must be"),
    (pixels(12), 0.9, {"by": "latency"}, "choose from"),
    (pixels(12), 0.9, {"budget": 0}, "budget must be a whole number"),
    (pixels(12), 0.9, {"methods": "vtp"}, "methods must be a list"),
    (pixels(12), 0.9, {"methods": ["best"]}, "unknown method 'best'; choose from"),
    (pixels(12), 0.9, {"methods": ["cdpruner"]}, "needs no text"),
    (pixels(12), 0.9, {"layers": [9]}, "choose from 0 to 3"),
    (pixels(12), 0.9, {"layers": []}, "layers must list at least one"),
    (pixels(12), 0.9, {"schedules": ["steep"]}, "schedules must be some of"),
    (pixels(12), 0.9, {"share": 1}, "unknown argument 'share'"),
    (pixels(12), 0.9, {"questions": "what ?"}, "questions are for PIL images"),
    (PICTURES, 0.9, {"questions": "what ?"}, "questions are for models that read text"),
    (PICTURES, 0.9, {}, "give it as processor="),
    (pixels(11), 0.9, {}, "at least 12 images"),
    ([], 0.9, {}, "at least 12 images"),
    ([{"input_ids": pixels(12)}], 0.9, {}, "no tensor 'pixel_values'"),
]


@pytest.mark.parametrize("images, target, kwargs, sentence", WRONG)
def test_wrong_input_of_a_clip(images, target, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        tune(clip("CLIPModel"), images, target, **{**FLOPS, **kwargs})


def test_wrong_input_of_other_kinds():
    model = Llava.model()
    for images in ("photos/", PICTURES[0], ["a.png"] * 12):
        with pytest.raises(TypeError, match="images must be a list of PIL images"):
            tune(clip("CLIPModel"), images, 0.9, **FLOPS)
    with pytest.raises(ValueError, match="takes 59 prompts to check, and there are 12; give at least 89"):
        tune(model, prompts_of(9), 0.95, **FLOPS)
    with pytest.raises(ValueError, match="one for each of the 12"):
        tune(model, PICTURES, 0.5, questions=["what ?"], **FLOPS)
    with pytest.raises(ValueError, match="whole processor"):
        tune(model, PICTURES, 0.5, processor=lambda **kwargs: None, **FLOPS)
    with pytest.raises(TypeError, match="language head"):
        tune(model.model, prompts_of(9), 0.5, **FLOPS)
    with pytest.raises(ValueError, match="cannot be pruned"):
        tune(torch.nn.Linear(2, 2), pixels(12), 0.5, **FLOPS)


def test_the_script(tmp_path, capsys):
    run = run_script("tune", capsys)
    save_clip(tmp_path / "clip")
    save_classes(tmp_path / "photos")
    argv = ("--model", tmp_path / "clip", "--images", tmp_path / "photos", "--device", "cpu", "--by", "flops")
    argv += ("--method", "uniform", "--layer", 0)
    code, out, err = run(
        *argv, "--target", 0.3, "--out", tmp_path / "tuned", "--json", tmp_path / "report.json"
    )
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result == json.loads((tmp_path / "report.json").read_text())
    assert result["num_images"] == {"search": 4, "check": 8} and result["quality"] == "cosine"
    config = VTPConfig.from_pretrained(tmp_path / "tuned")
    assert config.to_dict() == result["config"] and config.num_layers == 4
    apply_vtp(clip("CLIPModel"), tmp_path / "tuned")
    wrong = {
        ("--target", 2): "target must be a number between 0 and 1",
        ("--target", 0.5, "--layer", 9): "choose from 0 to 3",
        ("--target", 0.5, "--out", tmp_path / "report.json"): "is a file; give the name of a folder",
        ("--target", 0.5, "--out", tmp_path / "no" / "where"): "does not exist",
        ("--target", 0.5, "--images", tmp_path / "nothing"): "there is no folder",
        ("--target", 0.5, "--num-images", 5): "at least 12 images",
        ("--method", "vtp"): "--target",
    }
    for more, sentence in wrong.items():
        code, out, err = run(*argv, *more)
        assert code == 2 and not out and err.count("\n") == 1 and sentence in err, err


def test_the_script_asks_questions(tmp_path, capsys):
    run = run_script("tune", capsys)
    save_qwen(tmp_path / "qwen")
    save_classes(tmp_path / "photos")
    argv = ("--model", tmp_path / "qwen", "--images", tmp_path / "photos", "--device", "cpu", "--by", "flops")
    argv += ("--target", 0.5, "--method", "uniform", "--layer", "output", "--max-new-tokens", 2)
    code, out, err = run(*argv, "--question", "w7 w8", "--batch-size", 3)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["quality"] == "agreement" and result["num_images"] == {"search": 3, "check": 9}
