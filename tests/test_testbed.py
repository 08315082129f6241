"""The testbed's shipped models know what their cards say, and training goes on where it was stopped."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

from hf_vtp import vtp, vtp_stats
from hf_vtp.tools.bench import cli
from hf_vtp.tools.testbed import card, training
from hf_vtp.tools.testbed.backgrounds import BACKGROUNDS
from hf_vtp.tools.testbed.evaluate import (
    accuracy_by_type,
    answers,
    asked,
    class_scores,
    classified,
    zero_shot,
)
from hf_vtp.tools.testbed.load import load, prompts
from hf_vtp.tools.testbed.models import NEW
from hf_vtp.tools.testbed.questions import CLASSES
from hf_vtp.tools.testbed.recipes import Recipe

FOLDER = Path(__file__).parent / "testbed"
NAMES = ("clip", "llava", "qwen2_5_vl")
NUM, SEED = 240, 77  # scenes that no card was measured on


@cache
def bed_of(name):
    return load(FOLDER / name)


@cache
def items(name):
    return list(classified(NUM, SEED) if name == "clip" else asked(NUM, SEED, name == "qwen2_5_vl"))


def accuracy(name):
    if name == "clip":
        return zero_shot(bed_of(name), items(name))
    return accuracy_by_type(items(name), answers(bed_of(name), items(name)))["all"]["accuracy"]


@cache
def unpruned(name):
    return accuracy(name)


def results(name):
    return json.loads((FOLDER / name / card.RESULTS).read_text())


def test_they_are_small_files():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert max(path.stat().st_size for path in files) < 2**21
    assert not [path.name for path in files if path.suffix not in (".safetensors", ".json", ".md")]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_stock_classes(name):
    auto = AutoModel if name == "clip" else AutoModelForImageTextToText
    model, info = auto.from_pretrained(FOLDER / name, output_loading_info=True)
    assert type(model) is type(NEW[name]())
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert sum(weight.numel() for weight in model.parameters()) == results(name)["parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_is_in_the_results(name):
    result = results(name)
    assert (FOLDER / name / card.CARD).read_text() == card.card(result)
    assert result["backgrounds"] == {split: list(names) for split, names in BACKGROUNDS.items()}
    assert result["evaluation"]["num"] >= 1000 and result["evaluation"]["seed"] != SEED


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_on_fresh_scenes_is_the_cards(name):
    (row,) = [row for row in results(name)["evaluation"]["rows"] if row["keep_ratio"] is None]
    overall = row["accuracy"]["zero-shot" if name == "clip" else "all"]
    error = (overall["accuracy"] * (1 - overall["accuracy"]) * (1 / NUM + 1 / overall["num"])) ** 0.5
    assert abs(unpruned(name) - overall["accuracy"]) < 3 * error
    assert unpruned(name) > 2 * overall["chance"]


@pytest.mark.parametrize("name", NAMES)
def test_dropping_three_quarters_at_random_costs_ten_points(name):
    before = unpruned(name)  # before the model is pruned
    with vtp(bed_of(name).model, method="random", keep_ratio=0.25, layer=0):  # all at once
        assert before - accuracy(name) >= 0.1


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_patch_tokens_are_at_least_144(name):
    """Of which half leave inside the tower; and for Qwen they differ from picture to picture."""
    bed, some = bed_of(name), items(name)[:8]
    with vtp(bed.model, method="uniform", keep_ratio=0.5):
        if name == "clip":
            class_scores(bed, [image for image, _ in some], CLASSES[:2])
        else:
            answers(bed, some)
        counted = vtp_stats(bed.model).num_tokens
    per_token = 4 if name == "qwen2_5_vl" else 1  # Qwen counts merge units of four patches
    assert min(counted) * per_token >= 144
    assert (len(set(counted)) > 1) == (name == "qwen2_5_vl")


def test_prompts_are_those_of_the_stock_processor():
    bed, some = bed_of("llava"), items("llava")[:4]
    images, questions = [a.image for a in some], [a.question.question for a in some]
    made = prompts(bed, images, questions)
    processor = AutoProcessor.from_pretrained(FOLDER / "llava")
    stock = processor(
        images=images, text=[f"<image> {q}" for q in questions], padding=True, return_tensors="pt"
    )
    assert set(made) == {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(value, stock[key]) for key, value in made.items())


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(cli.UsageError, match="no model in"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(cli.UsageError, match="choose from clip, llava, qwen2_5_vl"):
        load(tmp_path)


def test_a_stopped_training_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    recipe = Recipe(steps=3, batch_size=2, learning_rate=1e-3, warmup=2)
    collate, loss_of, varied = training.KINDS["clip"]
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)

    def run(folder, loss=loss_of, seed=0):
        folder.mkdir(exist_ok=True)
        monkeypatch.setitem(training.KINDS, "clip", (collate, loss, varied))
        task = training.scenes("clip", seed, None, workers=0)
        return training.train(task, recipe, folder, torch.device("cpu"), seed).model

    calls = []

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss_of(*arguments)

    unbroken = run(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stopping)
    resumed = run(tmp_path / "stopped").state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in unbroken.state_dict().items())
    with pytest.raises(cli.UsageError, match="another recipe, seed or data"):
        run(tmp_path / "unbroken", seed=1)
