"""scripts/eval_clip.py on tiny classifiers: labels, agreement and cosines by a direct loop; equal FLOPs."""

import json
import zipfile

import datasets
import numpy as np
import pytest
import torch
from evaluation import image_processor, picture, run_script, save_classes
from models import sharpen
from torch.nn.functional import cosine_similarity
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_vtp import vtp
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.classifiers import classify
from hf_vtp.tools.evaluation.cases import BASELINES
from hf_vtp.tools.evaluation.compare import difference
from hf_vtp.tools.evaluation.equal_flops import TOLERANCE
from hf_vtp.tools.evaluation.item_scores import read_items
from hf_vtp.tools.evaluation.labels import BY_NAME, BY_NUMBER, match_labels

pytestmark = pytest.mark.models
SIDE = 48  # pixels: 12 × 12 patches
NAMES = ("fox", "Dog, Canis familiaris", "stone", "bird", "wolf", "CAT", "crane", "crane")
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
VIT = dict(**SIZES, image_size=SIDE, patch_size=4)
QUICK = ("--device", "cpu", "--rounds", 0, "--seeds", 1, "--method", "vtp")
PLACES = [(i, c) for c in range(3) for i in range(4)]  # of save_classes: bird, cat, dog
RIGHT = [(3, 5, 1)[c] for _, c in PLACES]  # the labels of NAMES


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval_classifier")
    torch.manual_seed(0)
    config = ViTConfig(**VIT, id2label=dict(enumerate(NAMES)), label2id={"fox": 0})
    model = sharpen(ViTForImageClassification(config))
    with torch.no_grad():
        for layer in (m for m in model.vit.modules() if isinstance(m, torch.nn.Linear)):
            layer.weight.mul_(4)  # or [CLS] would hold the same whatever else is there
        model.classifier.weight.mul_(30)
    model.save_pretrained(root / "vit")
    image_processor(SIDE).save_pretrained(root / "vit")
    save_classes(root / "photos")
    rows = {"image": [picture(10 * c + i) for i, c in PLACES], "label": RIGHT}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "numbers.parquet")
    save_archive(root / "archive")
    return root


def save_archive(folder, **changes):
    """The same pictures in an archive, their labels beside it."""
    folder.mkdir()
    rows = [{"file": f"{i}.png", "label": label} for i, label in enumerate(RIGHT)]
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for (i, c), row in zip(PLACES, rows, strict=True):
            with archive.open(row["file"], "w") as file:
                picture(10 * c + i).save(file, "png")
    rows[0] |= changes
    (folder / "labels.json").write_text(json.dumps(rows))


@pytest.fixture
def evaluate(capsys):
    run = run_script("eval_clip", capsys)
    return lambda root, *argv: run("--model", root / "vit", *argv)


def result_of(done):
    code, out, err = done
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


@torch.no_grad()
def direct(root, **pruned):
    """What [CLS] holds and the logits, image by image, by the model as a user has it."""
    model = ViTForImageClassification.from_pretrained(root / "vit").eval()
    process = image_processor(SIDE)
    found = []
    for i, c in PLACES:
        pixels = process(images=picture(10 * c + i), return_tensors="pt")
        with vtp(model, **pruned):
            found.append((model.vit(**pixels).last_hidden_state[0, 0], model(**pixels).logits[0]))
    return map(torch.stack, zip(*found, strict=True))


def test_accuracy_agreement_and_cosine_are_those_of_a_direct_loop(root, evaluate, tmp_path):
    argv = ("--data", root / "photos", *QUICK, "--keep-ratio", 0.03, "--layer", 1, "--batch-size", 5)
    result = result_of(evaluate(root, *argv, "--items", tmp_path / "i.npz"))
    assert (result["tasks"], result["labels"], result["num_classes"]) == (["classification"], BY_NAME, 8)
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["unpruned", "downsample", *BASELINES, "vtp"]
    columns, items = read_items(tmp_path / "i.npz")
    assert [row["method"] for row in columns] == list(rows)
    (cls, logits), (pruned_cls, pruned) = direct(root, keep_ratio=1.0), direct(root, keep_ratio=0.03, layer=1)
    for name, found in (("unpruned", logits), ("vtp", pruned)):
        at = list(rows).index(name)
        expected = (found.argmax(-1) == torch.tensor(RIGHT)).float().tolist()
        assert items["top_1"][at].tolist() == expected and rows[name]["top_1"] == np.mean(expected)
        expected = (found.argmax(-1) == logits.argmax(-1)).float().tolist()
        assert items["agreement"][at].tolist() == expected and rows[name]["agreement"] == np.mean(expected)
        hits = (found.topk(5).indices == torch.tensor(RIGHT)[:, None]).any(-1)
        assert items["top_5"][at].tolist() == hits.float().tolist()
    cosine = cosine_similarity(cls, pruned_cls).numpy()
    assert items["cosine_mean"][list(rows).index("vtp")] == pytest.approx(cosine, abs=1e-5)
    assert rows["vtp"]["cosine_mean"] == pytest.approx(cosine.mean(), abs=1e-5) and cosine.min() < 0.999
    assert rows["vtp"]["cosine_p5"] == pytest.approx(np.percentile(cosine, 5), abs=1e-5)
    assert rows["vtp"]["cosine_min"] == pytest.approx(cosine.min(), abs=1e-5)
    assert 0 < rows["vtp"]["agreement"] < 1  # or the test could not tell right from wrong
    assert rows["unpruned"]["cosine_min"] == rows["unpruned"]["agreement"] == 1
    assert rows["vtp"]["images_per_s"] is None and rows["vtp"]["flop_ratio"] > 1  # of no timed round
    metrics = {row["metric"] for row in result["comparisons"]}
    assert metrics == {"top_1", "top_5", "agreement", "cosine_mean"}


@pytest.mark.parametrize("data", ["numbers.parquet", "archive"])
def test_labels_that_are_numbers_are_the_models(root, evaluate, data):
    argv = (*QUICK, "--keep-ratio", 0.5, "--layer", 1)
    by_number = result_of(evaluate(root, "--data", root / data, *argv))
    by_name = result_of(evaluate(root, "--data", root / "photos", *argv))
    assert by_number["labels"] == BY_NUMBER and by_number["num_items"] == 12
    assert by_number["rows"] == by_name["rows"] and by_number["comparisons"] == by_name["comparisons"]


def test_names_are_matched_with_the_models():
    assert match_labels(["dog", "BIRD", "cat"], NAMES, "d") == ([1, 3, 5], BY_NAME)
    own = ["fox", "dog", "", "bird", "wolf", "cat", "crane", "crane"]  # at their own numbers, if there
    assert match_labels(own, NAMES, "d") == ([0, 1, -1, 3, 4, 5, 6, 7], BY_NAME)
    assert match_labels(["Great_White  shark"], ["shark", "great white shark, Carcharodon"], "d")[0] == [1]
    assert match_labels(["7", "2"], NAMES, "d") == ([7, 2], BY_NUMBER)
    assert match_labels([f"n0{i}" for i in range(8)], NAMES, "d") == (list(range(8)), BY_NUMBER)
    assert match_labels(["a", "b"], ["LABEL_0", "LABEL_1", "LABEL_2"], "d") == ([0, 1], BY_NUMBER)
    for classes, sentence in (
        (["dog", "tree"], "does not know 1 of the 2 classes of d, 'tree' among them"),
        (["tree", "7"], "knows none of the 2 classes of d, 'tree' among them, and has 8 labels"),
        (["8"], "knows none of the 1 classes"),
        (["crane"], "'crane' of d may be the model's label 6 or 7"),
    ):
        with pytest.raises(UsageError, match=sentence):
            match_labels(classes, NAMES, "d")


@torch.no_grad()
def test_what_a_head_reads_is_pooled():
    torch.manual_seed(0)
    pixels = {"pixel_values": torch.randn(2, 3, SIDE, SIDE)}
    small = dict(VIT, num_hidden_layers=2, num_labels=3)
    deit = DeiTForImageClassificationWithTeacher(DeiTConfig(**small)).eval()
    dinov2 = Dinov2ForImageClassification(Dinov2Config(**small)).eval()
    siglip = SiglipForImageClassification(
        SiglipConfig(text_config={**SIZES, "num_hidden_layers": 1}, vision_config=VIT, num_labels=3)
    ).eval()

    def of_both(x):
        return torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=-1)

    for model, tower, pool in (
        (deit, deit.deit, lambda x: x[:, :2].flatten(1)),
        (dinov2, dinov2.dinov2, of_both),
        (siglip, siglip.vision_model, lambda x: x.mean(dim=1)),
    ):
        pooled, logits = classify(model, pixels)
        assert torch.allclose(pooled, pool(tower(**pixels).last_hidden_state), atol=1e-6)
        assert torch.equal(logits, model(**pixels).logits) and logits.shape == (2, 3)


def test_a_table_at_equal_flops(root, evaluate, tmp_path):
    argv = ("--data", root / "photos", *QUICK, "tome", "--num-images", 6, "--layer", "1", "0,2")
    argv += ("--flops", 0.42, "--against", "tome", "--against", "uniform", "--batch-size", 2)
    files = ("--json", tmp_path / "r.json", "--verdict", tmp_path / "r.txt")
    done = evaluate(root, *argv, *files, "--items", tmp_path / "i.npz")
    result = result_of(done)
    rows = {(row["method"], row["flops"], row["layer"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 1 + 1 + 2 * 6
    for (method, wanted, layer), row in rows.items():
        if method == "unpruned":
            continue
        assert 1 / row["flop_ratio"] == pytest.approx(row["flop_share"], abs=1e-3)
        near = abs(row["flop_share"] - wanted) <= TOLERANCE
        assert near != ("flop_problem" in row)
        assert near == (layer == "0,2" and method != "tome") or method == "downsample"
        note = f"{method}, layer {layer}, at FLOPs {wanted:g}: {row.get('flop_problem')}"
        assert (note in done[1]) != near
    assert "its least FLOPs are 0." in rows["vtp", 0.42, "1"]["flop_problem"]
    columns, items = read_items(tmp_path / "i.npz")
    at = {(row["method"], row.get("flops"), row["layer"]): i for i, row in enumerate(columns)}
    assert {(c["flops"], c["layer"]) for c in result["comparisons"]} == {(0.42, "1"), (0.42, "0,2")}
    pairs = {
        (c["metric"], c["method"], c["layer"], c["other"], c["other_layer"]): c for c in result["against"]
    }
    # two rows of vtp and of tome, against two of tome (not with themselves) and two of uniform
    assert len(pairs) == len(result["against"]) == 4 * (4 + 2 + 8)
    one = pairs["cosine_mean", "vtp", "0,2", "tome", "1"]
    mine, others = (items["cosine_mean"][at[key]] for key in (("vtp", 0.42, "0,2"), ("tome", 0.42, "1")))
    expected = difference(mine, others)
    assert one["other_flop_share"] == rows["tome", 0.42, "1"]["flop_share"]
    assert one["other_flop_problem"] and one["num_items"] == 6
    assert [one[k] for k in ("difference", "low", "high")] == pytest.approx(
        [expected[k] for k in ("difference", "low", "high")], abs=1e-6
    )
    words = (tmp_path / "r.txt").read_text()
    assert "vtp, layer 0,2, against tome, layer 1: FLOPs 0.42 (" in words
    assert "FLOPs 0.42, layer 0,2: " in words


REFUSED = {  # arguments, and what the one sentence says
    "a share": (("--data", "{0}/photos", "--flops", "1.2"), "--flops must lie between 0 and 1, not 1.2"),
    "both": (("--data", "{0}/photos", "--flops", "0.5", "--keep-ratio", "0.5"), "not allowed with argument"),
    "against": (
        ("--data", "{0}/photos", "--against", "tome"),
        "no method of this table; choose from downsample",
    ),
    "classes": (("--data", "{0}/photos", "--classes", "{0}/names"), "'tree' among them"),
    "items": (("--data", "{0}/photos", "--items", "i.json"), "must end in one of .npz"),
    "plot": (("--data", "{0}/photos", "--rounds", "0", "--plot", "p.png"), "give at least one of --rounds"),
    "a number": (("--data", "{0}/far"), "has the label 8, which is no class"),
    "no member": (
        ("--data", "{0}/lost"),
        "labels.json names lost.png, which no .zip archive beside it holds",
    ),
    "no list": (("--data", "{0}/odd"), "labels.json must be a list of objects as in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence_and_exit_code_2(root, evaluate, name):
    for folder, changes in (("far", {"label": 8}), ("lost", {"file": "lost.png"}), ("odd", {"label": "cat"})):
        if not (root / folder).exists():
            save_archive(root / folder, **changes)
    (root / "names").write_text("dog\ncat\ntree\n")
    argv, sentence = REFUSED[name]
    code, out, err = evaluate(root, *(word.format(root) for word in argv))
    assert code == 2 and out == "" and err.count("\n") == 1 and sentence in err
