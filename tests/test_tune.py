"""tune: what it returns holds on other images, the model is as it was, and every wrong input is named."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from evaluation import image_processor, run_script, save_classes, save_clip, save_qwen
from models import clip, pixels, same, state
from PIL import Image
from torch.nn.functional import cosine_similarity
from transformers import AutoProcessor
from vlm import Llava

from hf_vtp import VTPConfig, apply_vtp, tune, vtp, vtp_stats
from hf_vtp.tools.testbed.evaluate import answers, asked
from hf_vtp.tools.testbed.load import load, prompts
from hf_vtp.tools.testbed.scenes import make_scene
from hf_vtp.tuning import api
from hf_vtp.tuning import trials as lab

pytestmark = pytest.mark.models
FOLDER = Path(__file__).parent / "testbed"
SEED, HELD_OUT = 31, 32  # of scenes that no card was measured on
QUIET = {"progress": False}
FLOPS = {**QUIET, "by": "flops"}
PLACES = {"methods": ["vtp", "uniform"], "layers": [0, 2, (0, 3)], "schedules": ["geometric"]}


@cache
def bed_of(name):
    return load(FOLDER / name)


@cache
def scenes(seed, num):
    return [make_scene(seed, i, "test").image for i in range(num)]


@cache
def tuned_clip():
    bed = bed_of("clip")
    return tune(bed.model, scenes(SEED, 90), 0.98, processor=bed.image_processor, **PLACES, **FLOPS)


@cache
def questions(seed, num):
    return list(asked(num, seed))


@cache
def tuned_llava():
    items, processor = questions(SEED, 90), AutoProcessor.from_pretrained(FOLDER / "llava")
    told = {"processor": processor, "questions": [f"<image> {a.question.question}" for a in items]}
    told |= {"methods": ["vtp"], "layers": [2, "output"], "max_new_tokens": 4}
    return tune(bed_of("llava").model, [a.image for a in items], 0.8, **told, **FLOPS)


@torch.no_grad()
def cosines(config, images):
    bed = bed_of("clip")
    inputs = bed.image_processor(images, return_tensors="pt")
    whole = bed.model.get_image_features(**inputs).pooler_output
    with vtp(bed.model, config):
        return cosine_similarity(bed.model.get_image_features(**inputs).pooler_output, whole)


def test_the_cosine_holds_on_held_out_scenes():
    config, report = tuned_clip()
    assert cosines(config, scenes(HELD_OUT, 200)).mean() >= 0.98
    assert report.met and report.chosen.config.keep_ratio == config.keep_ratio
    assert report.whole_flops / report.chosen.flops > 1.2
    assert (config.model_type, config.num_layers) == ("clip", 6)


def test_the_agreement_holds_on_held_out_scenes():
    config, report = tuned_llava()
    bed, items = bed_of("llava"), questions(HELD_OUT, 150)
    whole = answers(bed, items)
    with vtp(bed.model, config):
        agree = [a == b for a, b in zip(answers(bed, items), whole, strict=True)]
    assert report.met and report.quality == "agreement"
    assert sum(agree) / len(agree) >= 0.8
    assert report.num_images == {"search": 30, "check": 60}


def test_the_numbers_of_the_report_are_those_of_the_model():
    _, report = tuned_clip()
    images = scenes(SEED, 90)
    order = list(range(90))
    api.Random(0).shuffle(order)
    trial = report.chosen
    for found, part in ((trial.mean, order[:30]), (trial.checked[0], order[30:])):
        again = cosines(trial.config, [images[i] for i in part]).mean().item()
        assert found == pytest.approx(again, abs=1e-5)
    assert trial.checked[1] >= 0.98 and trial.checked[1] < trial.checked[0] < trial.checked[2]


def test_the_same_seed_finds_the_same(tmp_path):
    bed, (config, report) = bed_of("clip"), tuned_clip()
    again = tune(bed.model, scenes(SEED, 90), 0.98, processor=bed.image_processor, **PLACES, **FLOPS)
    assert again.config == config and again.report.rows() == report.rows()


def test_the_report_holds_what_was_tried(tmp_path, capsys):
    _, report = tuned_clip()
    rows = report.rows()
    assert report.num_candidates == 6 and {row["method"] for row in rows} <= {"vtp", "uniform"}
    assert {row["layer"] for row in rows} <= {"0", "2", "0,3"}
    assert sum(row["chosen"] for row in rows) == 1 and any(not row["met"] for row in rows)
    assert all(row["flop_ratio"] > 1 and row["search"]["low"] <= row["search"]["mean"] for row in rows)
    report.print()
    printed = capsys.readouterr().out
    assert report.summary in printed and printed.count("chosen") == 1
    assert len([line for line in printed.splitlines() if line.lstrip().startswith(("vtp", "unif"))]) >= len(
        rows
    )
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == json.loads(json.dumps(rows))


def test_a_target_out_of_reach_is_no_pruning():
    config, report = tune(clip("CLIPModel"), pixels(24), 0.999999, **PLACES, **FLOPS)
    assert config.keep_ratio == 1.0 and not report.met and report.chosen is None
    assert "no pruning" in report.summary and report.trials
    model, batch = clip("CLIPModel"), pixels(2)
    whole = model.get_image_features(batch)
    with vtp(model, config):
        assert same(model.get_image_features(batch), whole)


@pytest.mark.parametrize("fields", [{"keep_ratio": 0.5}, {"keep_ratio": [0.7, 0.5], "max_keep": 10}])
def test_what_is_returned_prunes_as_the_report_says(fields):
    """A ratio among the fields is what tune looks for, and no answer where it finds nothing."""
    few = {**fields, **FLOPS, "methods": ["uniform"], "layers": [0], "budget": 1}
    config, report = tune(clip("CLIPModel"), pixels(12), 0.999999, **few)
    assert not report.met and "keep_ratio is 1.0, no pruning" in report.summary and config.keep_ratio == 1.0
    model, batch = clip("CLIPModel"), pixels(2)
    whole = model.get_image_features(batch)
    with vtp(model, config):
        assert same(model.get_image_features(batch), whole)


@pytest.mark.parametrize("name", ["CLIPModel", "CLIPVisionModelWithProjection", "CLIPForImageClassification"])
def test_throughput_is_measured(name):
    places = {"methods": ["uniform"], "layers": [0]}
    told = dict(questions=None, rounds=1, batch_size=4, **places, **QUIET)
    _, report = tune(clip(name), [{"pixel_values": pixels(24)}], 0.5, **told)
    timed = [trial for trial in report.trials if trial.per_second is not None]
    assert timed and report.whole_per_second > 0
    assert all((row["speedup"] is None) == (row["per_second"] is None) for row in report.rows())
    if report.met:
        assert report.chosen.per_second > report.whole_per_second


def prompts_of(num):
    return [Llava.inputs((1, 2), seed=i) for i in range(num)]


def test_dicts_of_a_language_model():
    _, report = tune(
        Llava.model(), prompts_of(9), 0.5, layers=[0], methods=["vtp"], max_new_tokens=2, **FLOPS
    )
    assert report.num_images == {"search": 6, "check": 12}
    assert all(trial.mean in [i / 6 for i in range(7)] for trial in report.trials)


def test_pictures_and_dicts_are_the_same_prompts():
    items, processor = questions(SEED, 6), AutoProcessor.from_pretrained(FOLDER / "llava")
    texts = [a.question.question for a in items]
    made = api.make_items([a.image for a in items], [f"<image> {text}" for text in texts], True)
    (batch,) = api.batches(made, processor, 6, True)
    wanted = prompts(bed_of("llava"), [a.image for a in items], texts)
    assert set(batch) == set(wanted) and all(torch.equal(batch[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("ending", ["good", KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("family", ["clip", "llava"])
def test_the_model_is_left_as_it_was(family, ending, pruned, monkeypatch):
    model = clip("CLIPModel") if family == "clip" else Llava.model()
    twin = clip("CLIPModel") if family == "clip" else Llava.model()
    inputs = {"pixel_values": pixels(2)} if family == "clip" else Llava.inputs((1,))
    call = (lambda m: m.get_image_features(**inputs)) if family == "clip" else (lambda m: m(**inputs).logits)
    for one in (model, twin):
        if pruned:
            apply_vtp(one, keep_ratio=0.3, method="random")
        one.train()
        next(one.children()).eval()
        call(one)
    adapter, weights = vars(model).get("_vtp"), {k: v.clone() for k, v in model.state_dict().items()}
    if ending != "good":

        def fail(*args, **kwargs):
            raise ending

        monkeypatch.setattr(lab, "interleave", fail)
    images = pixels(24) if family == "clip" else prompts_of(9)
    told = dict(methods=["uniform"], layers=[0], rounds=1, max_new_tokens=1, **QUIET)
    if ending == "good":
        tune(model, images, 0.3, **told)
    else:
        with pytest.raises(ending):
            tune(model, images, 0.3, **told)
    assert vars(model).get("_vtp") is adapter
    assert state(model) == state(twin)
    assert [m.training for m in model.modules()] == [m.training for m in twin.modules()]
    assert getattr(model.config, "vtp_config", None) == getattr(twin.config, "vtp_config", None)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    model.eval(), twin.eval()
    assert same(call(model), call(twin))
    if pruned:
        assert same(vtp_stats(model).keep_indices, vtp_stats(twin).keep_indices)


def test_what_a_loaded_model_remembers_is_left():
    model = clip("CLIPModel")
    model.config.vtp_config = {"keep_ratio": 0.4}
    tune(model, pixels(12), 0.5, methods=["uniform"], layers=[0], **FLOPS)
    assert model.config.vtp_config == {"keep_ratio": 0.4}


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
    assert found == {0, 1, 2, (0, 2), (1, 2, 3), None}
    found = api.make_candidates(Llava.model(), ["vtp"], None, ["geometric", "linear"], base)
    assert [str(c) for c in found] == [
        *("vtp layer 0", "vtp layer 1", "vtp layer 2", "vtp layer 0,2 geometric", "vtp layer 0,2 linear"),
        "vtp layer output",
    ]
    assert found[3].config(0.25).keep_ratio == [0.5, 0.25] and found[4].config(0.25).keep_ratio == [
        0.625,
        0.25,
    ]


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


@pytest.mark.parametrize("images, target, told, sentence", WRONG)
def test_wrong_input_of_a_clip(images, target, told, sentence):
    with pytest.raises(ValueError, match=sentence):
        tune(clip("CLIPModel"), images, target, **{**FLOPS, **told})


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
        tune(model, PICTURES, 0.5, processor=lambda **told: None, **FLOPS)
    with pytest.raises(TypeError, match="language head"):
        tune(model.model, prompts_of(9), 0.5, **FLOPS)
    with pytest.raises(ValueError, match="cannot be pruned"):
        tune(torch.nn.Linear(2, 2), pixels(12), 0.5, **FLOPS)


def test_the_name_is_the_function():
    import hf_vtp
    import hf_vtp.tuning  # must not shadow it

    assert callable(hf_vtp.tune) and "tune" in hf_vtp.__all__ and hf_vtp.tune is hf_vtp.tuning.tune


def test_the_snippet_of_the_readme_runs(capsys):
    readme = (FOLDER.parent.parent / "README.md").read_text()
    (snippet,) = [
        code for code in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL) if "tune(" in code
    ]
    names = {"model": clip("CLIPModel"), "images": scenes(SEED, 90)[:12], "processor": image_processor(24)}
    exec(snippet, names)
    assert names["report"].summary in capsys.readouterr().out
    assert "_vtp" in vars(names["model"])


def test_the_script(tmp_path, capsys):
    run = run_script("tune", capsys)
    save_clip(tmp_path / "clip")
    save_classes(tmp_path / "photos")
    told = ("--model", tmp_path / "clip", "--images", tmp_path / "photos", "--device", "cpu", "--by", "flops")
    told += ("--method", "uniform", "--layer", 0)
    code, out, err = run(
        *told, "--target", 0.3, "--out", tmp_path / "tuned", "--json", tmp_path / "report.json"
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
    for argv, sentence in wrong.items():
        code, out, err = run(*told, *argv)
        assert code == 2 and not out and err.count("\n") == 1 and sentence in err, err


def test_the_script_asks_questions(tmp_path, capsys):
    run = run_script("tune", capsys)
    save_qwen(tmp_path / "qwen")
    save_classes(tmp_path / "photos")
    told = ("--model", tmp_path / "qwen", "--images", tmp_path / "photos", "--device", "cpu", "--by", "flops")
    told += ("--target", 0.5, "--method", "uniform", "--layer", "output", "--max-new-tokens", 2)
    code, out, err = run(*told, "--question", "w7 w8", "--batch-size", 3)
    if "Torchvision" in err:
        pytest.skip("this Transformers has no such image processor without torchvision")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["quality"] == "agreement" and result["num_images"] == {"search": 3, "check": 9}
