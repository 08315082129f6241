"""scripts/eval_clip.py on a tiny CLIP: its numbers worked out again, its files, its errors, two processes."""

import json

import datasets
import numpy as np
import pytest
import torch
from evaluation import CLASSES, launch, picture, run_script, save_captions, save_classes, save_clip
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from hf_vtp import vtp
from hf_vtp.tools.evaluation.cases import BASELINES

pytestmark = pytest.mark.models
TIMES = {"images_per_s", "speedup"}
QUICK = ("--device", "cpu", "--rounds", 1, "--seeds", 2, "--method", "vtp", "--keep-ratio", 0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval_clip")
    save_clip(root / "clip")
    save_classes(root / "photos", broken=True)
    save_captions(root / "captioned")
    rows = {"picture": [picture(i) for i in range(5)], "label": [i % 2 for i in range(5)]}
    named = datasets.ClassLabel(names=["red", "blue"])
    features = datasets.Features({"picture": datasets.Image(), "label": named})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.to_parquet(root / "colours.parquet")
    dataset.save_to_disk(root / "on_disk")
    dataset.cast_column("label", datasets.Value("int64")).to_parquet(root / "numbers.parquet")
    words = dataset.cast_column("label", datasets.Value("string"))
    words.map(lambda row: {"label": ["red", "blue"][int(row["label"])]}).to_parquet(root / "words.parquet")
    dataset.remove_columns("label").to_parquet(root / "bare.parquet")
    dataset.remove_columns("picture").to_parquet(root / "blind.parquet")
    return root


@pytest.fixture
def evaluate(capsys):
    return run_script("eval_clip", capsys)


def result_of(done):
    code, out, err = done
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


def embeddings(root, images, **pruned):
    """Image embeddings by the model as a user has it."""
    model = CLIPModel.from_pretrained(root / "clip").eval()
    pixels = CLIPImageProcessor.from_pretrained(root / "clip")(images=images, return_tensors="pt")
    with torch.no_grad():
        if not pruned:
            return model.get_image_features(**pixels).pooler_output
        with vtp(model, **pruned):
            return model.get_image_features(**pixels).pooler_output


def texts(root, words):
    model, tokenizer = (
        CLIPModel.from_pretrained(root / "clip").eval(),
        CLIPTokenizer.from_pretrained(root / "clip"),
    )
    with torch.no_grad():
        tokens = tokenizer(words, padding=True, return_tensors="pt")
        return torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)


def test_zero_shot(root, evaluate, tmp_path):
    (tmp_path / "prompts").write_text("a {}.\nthe {}.\n")
    files = [tmp_path / name for name in ("r.json", "r.png", "r.txt")]
    flags = [word for pair in zip(("--json", "--plot", "--verdict"), files, strict=True) for word in pair]
    argv = ("--model", root / "clip", "--data", root / "photos", "--batch-size", 5, *QUICK, "--layer", 0, 2)
    code, out, err = evaluate(*argv, "--prompts", tmp_path / "prompts", *flags)
    result = result_of((code, out, err))
    assert result == json.loads(files[0].read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts", "r.json", "r.png", "r.txt"]
    with Image.open(files[1]) as image:
        image.load()
    assert "skipped row 3" in err and result["num_skipped"] == 1 and result["num_items"] == 11
    assert result["tasks"] == ["zero-shot"] and result["num_classes"] == 3 and result["num_processes"] == 1
    rows = {(row["method"], row["layer"]): row for row in result["rows"]}
    inside = [(method, layer) for layer in ("0", "2") for method in (*BASELINES, "vtp")]
    assert list(rows) == [("unpruned", "-"), ("downsample", "-"), *inside]
    counts = {method: (row["kept_tokens"], row["total_tokens"]) for (method, _), row in rows.items()}
    assert counts.pop("unpruned") == (36, 36) and counts.pop("downsample") == (16, 36)
    assert set(counts.values()) == {(18, 36)}

    places = [(i, c) for c in range(3) for i in range(4) if (i, c) != (3, 0)]  # without the broken one
    images = [picture(10 * c + i) for i, c in places]
    words = texts(root, [f"{article} {name}." for name in CLASSES for article in ("a", "the")])
    classes = torch.nn.functional.normalize(words.unflatten(0, (3, 2)).mean(dim=1), dim=-1)
    unpruned, half = embeddings(root, images), embeddings(root, images, keep_ratio=0.5, layer=2)
    right = torch.tensor([c for _, c in places])
    accuracy = [((x @ classes.T).argmax(-1) == right).double().mean().item() for x in (unpruned, half)]
    row = rows["vtp", "2"]
    assert rows["unpruned", "-"]["top_1"] == pytest.approx(accuracy[0])
    assert row["top_1"] == pytest.approx(accuracy[1])
    assert row["top_1_lossyness"] == pytest.approx(1 - accuracy[1] / accuracy[0])
    cosine = torch.nn.functional.cosine_similarity(unpruned, half).numpy()
    assert row["cosine_mean"] == pytest.approx(cosine.mean(), abs=1e-5) and row["cosine_mean"] < 0.9999
    assert row["cosine_p5"] == pytest.approx(np.percentile(cosine, 5), abs=1e-5)
    assert row["cosine_min"] == pytest.approx(cosine.min(), abs=1e-5)
    assert rows["unpruned", "-"]["cosine_min"] == 1 and rows["unpruned", "-"]["top_1_lossyness"] == 0
    assert row["flop_ratio"] > 1 and row["images_per_s"] > 0 and rows["unpruned", "-"]["speedup"] == 1
    assert [r["num_seeds"] for r in result["rows"]] == [1, 1, *([2, 1, 2, 1, 1] * 2)]
    compared = [(c["metric"], c["layer"], c["method"], c["num_items"]) for c in result["comparisons"]]
    metrics = ("cosine_mean", "top_1")  # of three classes, the top five are all
    assert compared == [(metric, layer, "vtp", 11) for metric in metrics for layer in ("0", "2")]
    best = max(
        row["top_1"] for (m, layer), row in rows.items() if m in (*BASELINES, "downsample") and layer in "-2"
    )
    (compared,) = [c for c in result["comparisons"] if c["metric"] == "top_1" and c["layer"] == "2"]
    assert (
        compared["difference"] == pytest.approx(row["top_1"] - best)
        and compared["low"] <= compared["difference"]
    )
    words = files[2].read_text()
    assert "vtp against the best baseline of each cell" in words
    assert "equal throughput" not in words and not result["equal_throughput"]  # of one round


def test_retrieval(root, evaluate):
    """With ten timed rounds or more, rows are compared at equal throughput as well."""
    result = result_of(
        evaluate("--model", root / "clip", "--data", root / "captioned", *QUICK, "--rounds", 10)
    )
    assert result["tasks"] == ["retrieval"] and result["num_items"] == 5
    equal = result["equal_throughput"]
    recalls = {row["metric"] for row in result["comparisons"]}
    assert {row["metric"] for row in equal} <= recalls | {"cosine_mean"}
    slower = [r for r in result["rows"] if r["method"] in (*BASELINES, "downsample") and r["speedup"] <= 1]
    assert {row["other"] for row in equal} >= {row["method"] for row in slower}
    assert all(row["latency_spread"] >= 0 for row in result["rows"])
    rows = {row["method"]: row for row in result["rows"]}
    lines = (root / "captioned" / "metadata.jsonl").read_text().splitlines()
    captions = [json.loads(line)["captions"] for line in lines]
    words = texts(root, [caption for own in captions for caption in own])
    for method, pruned in (("unpruned", {}), ("vtp", {"keep_ratio": 0.5})):
        images = embeddings(root, [picture(i) for i in range(5)], **pruned)
        similarity = torch.nn.functional.normalize(images, dim=-1) @ words.T  # [5, 10]
        first = similarity.argmax(dim=1) // 2 == torch.arange(5)
        assert rows[method]["i2t_recall_at_1"] == pytest.approx(first.double().mean().item())
        first = similarity.argmax(dim=0) == torch.arange(10) // 2
        assert rows[method]["t2i_recall_at_1"] == pytest.approx(first.double().mean().item())
        assert rows[method]["t2i_recall_at_5"] == rows[method]["i2t_recall_at_10"] == 1  # there are no more


@pytest.mark.parametrize("name", ["colours.parquet", "on_disk", "words.parquet", "numbers.parquet"])
def test_kinds_of_datasets(root, evaluate, tmp_path, name):
    (tmp_path / "names").write_text("red\nblue\n")
    classes = ("--classes", tmp_path / "names") if name == "numbers.parquet" else ()
    result = result_of(
        evaluate("--model", root / "clip", "--data", root / name, "--num-images", 4, *QUICK, *classes)
    )
    assert result["num_items"] == 4 and result["num_classes"] == 2
    assert {"top_1", "cosine_mean"} < set(result["rows"][0]) and "top_5" not in result["rows"][0]


def test_without_labels_there_is_the_cosine(root, evaluate):
    result = result_of(evaluate("--model", root / "clip", "--data", root / "bare.parquet", *QUICK))
    assert result["tasks"] == [] and result["rows"][-1]["cosine_mean"] < 1


def test_random_weights_have_no_quality(root, evaluate):
    argv = ("--model", root / "clip", "--weights", "random", "--data", root / "photos", *QUICK)
    code, out, _ = evaluate(*argv)
    result = result_of((code, out, ""))
    assert "n/a" in out and not result["comparisons"]
    assert all("top_1" not in row and row["images_per_s"] > 0 for row in result["rows"])


def test_two_processes_give_the_same_numbers(root, evaluate, tmp_path):
    """Eleven images in batches of two: six batches, the last one of one, three for each process."""
    for data, size in (("photos", 2), ("captioned", 2)):
        argv = ("--model", root / "clip", "--data", root / data, "--batch-size", size, *QUICK)
        one = result_of(evaluate(*argv))
        done = launch("eval_clip", *argv, "--json", tmp_path / f"{data}.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        two = json.loads((tmp_path / f"{data}.json").read_text())
        assert (one["num_processes"], two["num_processes"]) == (1, 2)
        assert two["num_items"] == one["num_items"] and two["comparisons"] == one["comparisons"]
        for a, b in zip(one["rows"], two["rows"], strict=True):
            assert {k: v for k, v in a.items() if k not in TIMES} == {k: b[k] for k in b if k not in TIMES}


REFUSED = {  # arguments, and what the one sentence says
    "no data": (("--data", "{0}/nowhere"), "there is no folder"),
    "no image": (("--data", "{0}/blind.parquet"), "there is no image in"),
    "no split": (("--data", "{0}/photos", "--split", "night"), "no split 'night'; choose from"),
    "no column": (("--data", "{0}/photos", "--label-column", "kind"), "no column 'kind'; choose from"),
    "labels without names": (("--data", "{0}/numbers.parquet"), "--classes"),
    "classes nowhere": (("--data", "{0}/photos", "--classes", "{0}/nowhere"), "--classes"),
    "prompts without a place": (("--data", "{0}/photos", "--prompts", "{0}/prompts"), "needs {{}}"),
    "ratio": (("--data", "{0}/photos", "--keep-ratio", "0"), "(0, 1]"),
    "method": (("--data", "{0}/photos", "--method", "best"), "unknown method 'best'; choose from"),
    "merger": (("--data", "{0}/photos", "--method", "vtp+absrob"), "unknown merger 'absrob'; choose from"),
    "a baseline": (("--data", "{0}/photos", "--method", "downsample"), "holds the row downsample already"),
    "layer": (("--data", "{0}/photos", "--layer", "9"), "choose from 0 to 3"),
    "output": (
        ("--data", "{0}/photos", "--layer", "output"),
        "give CLIPModel an encoder layer",
    ),
    "no model": (("--data", "{0}/photos", "--model", "{0}/nowhere"), "there is no folder"),
    "json": (("--data", "{0}/photos", "--json", "{0}/nowhere/r.json"), "does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence_and_exit_code_2(root, evaluate, name):
    (root / "prompts").write_text("a photo\n")
    argv, sentence = REFUSED[name]
    before = sorted(root.rglob("*"))
    code, out, err = evaluate("--model", root / "clip", *(word.format(root) for word in argv))
    assert code == 2 and out == "" and err.count("\n") == 1
    assert sentence.format() in err and sorted(root.rglob("*")) == before
