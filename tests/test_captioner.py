"""The captioner: it learns what a stock LLaVA computes, goes on where it was stopped, and can be measured."""

import json

import numpy as np
import pytest
import torch
from evaluation import image_processor, picture, run_script, save_questions
from load_script import run
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, AutoProcessor, ViTConfig, ViTForImageClassification

from hf_vtp import metrics, verify
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.evaluation.questions import read_questions
from hf_vtp.tools.models import load_with_processor
from hf_vtp.tools.testbed import captioner, recipes, training
from hf_vtp.tools.testbed.caption_data import HELD_OUT, TRAIN, read_captioned
from hf_vtp.tools.testbed.caption_words import CAPTION, word_tokenizer

pytestmark = pytest.mark.models
THINGS = ("dog", "cat", "bird", "tree", "bus")
RECIPE = recipes.Recipe(4, 3, 2e-3, None, warmup=2, precision="float32")
CHECK = (
    "--device",
    "cpu",
    "--metric",
    "cider",
    "--method",
    "vtp",
    "--seeds",
    1,
    "--rounds",
    1,
    "--keep-ratio",
    0.25,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tower, and captioned pictures as a dataset."""
    root = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(0)
    sizes = dict(hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48)
    config = ViTConfig(**sizes, image_size=24, patch_size=4)
    ViTForImageClassification(config).save_pretrained(root / "tower")
    image_processor(24).save_pretrained(root / "tower")
    (root / "made").mkdir()
    splits = {}
    for split, numbers in {"train": range(8), "dev": range(8, 14)}.items():
        splits[split] = []
        for i in numbers:
            picture(i).save(root / "made" / f"{i}.png")
            captions = [f"A {THINGS[i % 5]} near the {THINGS[j]} ." for j in range(2 + i % 2)]
            splits[split].append({"file": f"{i}.png", "captions": [*captions, f"number{i}"]})
    (root / "made" / "captions.json").write_text(json.dumps(splits))
    assert (
        run("testbed/make_caption_data", "--captions", root / "made/captions.json", "--out", root / "data")
        == 0
    )
    return root


@pytest.fixture(scope="module", autouse=True)
def short():
    """A recipe of four steps, each of which is saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.RECIPES["cpu"], "captions", RECIPE)
        patch.setattr(training, "SAVE_EVERY", 0.0)
        patch.setattr(training, "CHECK_EVERY", 2)
        yield


def arguments(root, out):
    argv = ("captions", "--out", out, "--tower", root / "tower", "--captions", root / "data")
    return (*argv, "--device", "cpu", "--num-eval", 4)


@pytest.fixture(scope="module")
def trained(root):
    """The folder of a captioner that was trained in one go."""
    assert run("testbed/train", *arguments(root, root / "trained")) == 0
    return root / "trained"


@pytest.fixture
def train(root, capsys):
    command = run_script("testbed/train", capsys)
    return lambda out, *more: command(*arguments(root, out), *more)


@pytest.fixture(scope="module")
def tokenizer(root):
    rows = json.loads((root / "made" / "captions.json").read_text())["train"]
    return word_tokenizer(caption for row in rows for caption in row["captions"])


def weights(folder):
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.state_dict()


def test_a_stopped_training_ends_where_an_unbroken_one_does(root, trained, train, tmp_path, monkeypatch):
    result, calls = json.loads((trained / "results.json").read_text()), []
    assert (result["pictures"], result["evaluation"]["num"], result["last"]["step"]) == (8, 4, 4)
    assert "CIDEr-D of greedy captions of 4 held-out" in (trained / "README.md").read_text()
    loss = captioner.caption_loss

    def stopping(*args):
        calls.append(1)
        if len(calls) == 5:  # two steps and the check of two batches after them came before
            raise KeyboardInterrupt
        return loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(captioner, "caption_loss", stopping)
        assert train(tmp_path / "stopped")[0] == 130
    assert not (tmp_path / "stopped/config.json").exists()
    assert train(tmp_path / "stopped")[0] == 0
    unbroken, resumed = weights(trained), weights(tmp_path / "stopped")
    assert all(torch.equal(value, resumed[key]) for key, value in unbroken.items())
    assert train(tmp_path / "other", "--seed", 1)[0] == 0
    key = "model.multi_modal_projector.linear_1.weight"
    assert not torch.equal(weights(tmp_path / "other")[key], unbroken[key])
    code, _, err = train(tmp_path / "stopped", "--seed", 1)
    assert code == 2 and "is of another recipe, seed or data" in err

    tower = ViTForImageClassification.from_pretrained(root / "tower").vit.half().float().state_dict()
    prefix = "model.vision_tower."
    assert all(torch.equal(value, unbroken[prefix + key]) for key, value in tower.items())


def test_the_loss_of_packed_captions_is_that_of_each_on_its_own(root, tokenizer, tmp_path):
    """A stock LLaVA's, of pixels and one caption at a time, through the processor that is saved."""
    tower = load_with_processor(str(root / "tower"))
    data = read_captioned(str(root / "data"), TRAIN, tower, tmp_path)
    assert data.features.shape == (8, 36, 24) and len(data.captions) == 8
    torch.manual_seed(1)
    model = captioner.new_captioner(tower.model, tokenizer).eval()
    batches = captioner.CaptionBatches(data, tokenizer, seed=0)
    chosen = [1, 4, 6]
    _, parts = captioner.caption_loss(model, None, batches.rows(chosen))
    captioner.save_captioner(model, tmp_path / "saved", tokenizer, tower.image_processor)
    processor, losses = AutoProcessor.from_pretrained(tmp_path / "saved"), []
    for i in chosen:
        for caption in data.captions[i]:
            text = f"<image> {CAPTION} {caption} {tokenizer.eos_token}"
            inputs = processor(images=picture(i), text=text, return_tensors="pt").to(torch.float32)
            inputs.pop("token_type_ids", None)
            with torch.no_grad():
                logits = model(**inputs).logits[0, 36:-1]
            labels = inputs["input_ids"][0, 37:]
            known = labels != tokenizer.unk_token_id
            losses += cross_entropy(logits[known], labels[known], reduction="none").tolist()
    assert parts["words"].item() == pytest.approx(sum(losses) / len(losses), abs=2e-3)  # float16 features
    assert tokenizer.unk_token_id in tokenizer("number1")["input_ids"]  # so that some were not predicted


def test_an_epoch_has_every_picture_once_and_resumes_anywhere(root, tokenizer, tmp_path):
    tower = load_with_processor(str(root / "tower"))
    data = read_captioned(str(root / "data"), TRAIN, tower, tmp_path)
    batches = captioner.CaptionBatches(data, tokenizer, seed=3)
    first = [batch["features"] for batch, _ in zip(batches(4, 0), range(4), strict=False)]
    epochs = [torch.cat(first[:2]), torch.cat(first[2:])]
    stored = torch.from_numpy(np.array(data.features))
    assert not torch.equal(*epochs)
    for epoch in epochs:
        found = (epoch[:, None] == stored[None]).flatten(2).all(-1)
        assert found.sum(0).tolist() == [1] * 8
    assert torch.equal(next(batches(4, 3))["features"], first[3])
    assert len(read_captioned(str(root / "data"), HELD_OUT, tower, tmp_path).captions) == 6


def talkative(tower, tokenizer):
    """A captioner whose random words depend on the image."""
    torch.manual_seed(2)
    model = captioner.new_captioner(tower.model, tokenizer).eval()
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.mul_(30)
    return model


def test_a_pruned_captioner_keeps_the_promises(root, tokenizer):
    """In the tower of a classifier, which no other test puts under a LLaVA, and after it."""
    model = talkative(load_with_processor(str(root / "tower")), tokenizer)
    ids = [tokenizer.convert_tokens_to_ids("<image>")] * 36 + tokenizer(f"{CAPTION} a dog")["input_ids"]
    inputs = {"input_ids": torch.tensor([ids] * 2), "pixel_values": torch.randn(2, 3, 24, 24)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for config in (dict(method="qk_topk"), dict(), dict(layer="output"), dict(method="fastervlm")):
        report = verify(model, inputs, keep_ratio=0.25, max_new_tokens=2, **config)
        assert report.holds, report.table()


def test_eval_vlm_measures_captions(root, tokenizer, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tower = load_with_processor(str(root / "tower"))
    captioner.save_captioner(talkative(tower, tokenizer), tmp_path / "m", tokenizer, tower.image_processor)
    evaluate = run_script("eval_vlm", capsys)
    argv = ("--model", "m", "--data", root / "data", "--split", "validation")
    asked = ("--question", "What is it?", "--layer", "default", "output", "--max-new-tokens", 6)
    code, out, err = evaluate(*argv, *asked, *CHECK)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    lines = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines()[1:])
    texts = {}
    for line in lines:
        texts.setdefault(line["case"], []).append(line["prediction"])
    references = json.loads((root / "made/captions.json").read_text())["dev"]
    references = [row["captions"] for row in references]
    rows = {(row["method"], row["layer"]): row for row in result["rows"]}
    for layer in ("default", "output"):
        row, own = rows["vtp", layer], texts[f"vtp 0.25 layer {layer}"]
        scored = metrics.load("cider").compute(predictions=own, references=references)
        same = [a == b for a, b in zip(own, texts["unpruned"], strict=True)]
        assert row["cider"] == pytest.approx(scored["cider"]) and row["agreement"] == sum(same) / 6
        assert row["kept_tokens"] == 9
    assert rows["unpruned", "-"]["agreement"] == 1
    assert rows["uniform", "default"]["agreement"] < 1 and max(row["cider"] for row in result["rows"]) > 0
    compared = {(row["metric"], row["layer"]) for row in result["comparisons"]}
    assert compared == {(m, w) for m in ("cider", "agreement") for w in ("default", "output")}
    code, _, err = evaluate(*argv, *CHECK)
    assert code == 2 and "with --question" in err


def test_what_cannot_be_captioned_is_one_sentence(root, trained, train, tmp_path, capsys):
    command = run_script("testbed/train", capsys)
    code, _, err = command("captions", "--out", tmp_path / "a")
    assert code == 2 and "--tower" in err and err.count("\n") == 1
    code, _, err = train(tmp_path / "a", "--captions", root / "made")
    assert code == 2 and err.count("\n") == 1
    code, _, err = train(trained, "--captions", root / "data" / ".." / "data")
    assert code == 2 and "other captions" in err
    with pytest.raises(UsageError, match="has questions of its own; leave out --question"):
        read_questions(str(save_questions(tmp_path / "q")), asked="What is it?")
    made = run_script("testbed/make_caption_data", capsys)
    (tmp_path / "c.json").write_text('{"train": [{"file": "../x.png", "captions": ["a"]}]}')
    code, _, err = made("--captions", tmp_path / "c.json", "--out", tmp_path / "out")
    assert code == 2 and "is no file in" in err
    (tmp_path / "c.json").write_text('{"train": [{"file": 3}]}')
    code, _, err = made("--captions", tmp_path / "c.json", "--out", tmp_path / "out")
    assert code == 2 and "has another form" in err
