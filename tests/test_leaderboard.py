"""scripts/leaderboard.py on tiny models: what it measures, keeps, measures again and refuses."""

import json
from dataclasses import replace

import pytest
import torch
from evaluation import image_processor, run_script, save_classes, save_clip, save_llava, save_questions
from load_script import SCRIPTS
from transformers import ViTConfig, ViTForImageClassification

from hf_vtp import vtp
from hf_vtp.methods.table import METHODS
from hf_vtp.tools.evaluation.cases import Case
from hf_vtp.tools.leaderboard import measure
from hf_vtp.tools.leaderboard.contestants import rows, version_of
from hf_vtp.tools.leaderboard.entries import read_entries
from hf_vtp.tools.leaderboard.pictures import Pictures
from hf_vtp.tools.leaderboard.scores import unpack

pytestmark = pytest.mark.models
CLIP = {"kind": "clip", "model": "{made}/clip", "data": "{made}/photos", "points": {"flops": [0.6]}}
VIT = {**CLIP, "kind": "classifier", "model": "{made}/vit", "metrics": ["agree", "cosine", "top_1"]}
LLAVA = {
    "kind": "vlm",
    "model": "{made}/llava",
    "data": "{made}/questions/questions.jsonl",
    "prompt": "{image} {question}",
    "metrics": ["exact_match", "agreement"],
    "max_new_tokens": 2,
    "points": {"after": [0.5], "tower": [0.25]},
}
ABSENT = {**CLIP, "model": "{made}/absent", "prepare": "make it"}
MODELS = {
    "clip": CLIP,
    "vit": VIT,
    "llava": LLAVA,
    "absent": ABSENT,
    "elsewhere": {**CLIP, "data": "{more}/x"},
}
METHOD = ("--method", "vtp", "tome", "random", "cdpruner", "downsample")
METHOD = (*METHOD, "tome (published)")


def save_vit(folder):
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4)
    ViTForImageClassification(ViTConfig(**sizes, image_size=24, patch_size=4, num_labels=3)).save_pretrained(
        folder
    )
    image_processor(24).save_pretrained(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("leaderboard")
    save_clip(root / "clip")
    save_vit(root / "vit")
    save_llava(root / "llava")
    save_classes(root / "photos")
    save_questions(root / "questions", count=6)
    (root / "models.json").write_text(json.dumps(MODELS))
    return root


@pytest.fixture
def run(made, capsys):
    """The command on the models of this file: (what was done of each model, stderr)."""

    def measured(*argv, out="out"):
        given = (
            "--models",
            made / "models.json",
            "--folder",
            f"made={made}",
            "--out",
            made / out,
            "--seeds",
            2,
        )
        code, printed, err = run_script("leaderboard", capsys)(*given, "--device", "cpu", *argv)
        assert code == 0, err
        return json.loads(printed.splitlines()[-1])["models"], err

    return measured


def cells(made, model, row, out="out"):
    return json.loads((made / out / model / f"{row}.json").read_text())["cells"]


def test_every_cell_is_measured_once_and_again_only_where_the_method_changed(run, made, monkeypatch):
    done, err = run(*METHOD)
    assert done["clip"] == {"measured": 5, "not_run": 2, "there": 0}
    assert done["vit"] == {"measured": 6, "not_run": 1, "there": 0}
    assert done["llava"] == {"measured": 11, "not_run": 2, "there": 0}
    assert done["absent"]["skipped"].endswith("/absent; make it with: make it")
    assert done["elsewhere"]["skipped"] == "no folder 'more' was given; add --folder more=DIR"
    assert "absent is skipped" in err and "elsewhere is skipped" in err
    files = {path: path.read_bytes() for path in (made / "out").rglob("*.json")}

    again, _ = run(*METHOD)
    assert [again[name]["measured"] + again[name]["not_run"] for name in ("clip", "vit", "llava")] == [0] * 3
    assert {path: path.read_bytes() for path in (made / "out").rglob("*.json")} == files

    monkeypatch.setitem(METHODS, "tome", replace(METHODS["tome"], schedule="geometric"))
    again, _ = run(*METHOD, "--only", "clip")
    assert again == {"clip": {"measured": 1, "not_run": 0, "there": 6}}
    changed = {path.name for path, before in files.items() if path.read_bytes() != before}
    assert changed == {"tome.json"}


def test_a_stopped_run_goes_on_where_it_was(run, made, monkeypatch):
    monkeypatch.setattr(measure, "IN_A_PASS", 1)
    score, seen = Pictures.score, []

    def stopping(self, own, batch, scores):
        seen.append(own)
        if len(seen) == 3:
            raise MemoryError
        score(self, own, batch, scores)

    monkeypatch.setattr(Pictures, "score", stopping)
    argv = ("--only", "clip", "--method", "vtp", "tome")
    with pytest.raises(AssertionError, match="out of memory"):
        run(*argv, out="stopped")
    done, _ = run(*argv, out="stopped")
    assert done["clip"] == {"measured": 1, "not_run": 0, "there": 2}


def test_cells_hold_what_the_pruned_model_gives_at_the_wanted_share(run, made):
    run("--only", "clip", "vit", *METHOD)
    entry = next(entry for entry in read_entries(made / "models.json") if entry.name == "vit")
    subject = Pictures(entry, str(made / "vit"), str(made / "photos"), 99, torch.device("cpu"))
    (batch,) = subject.batches()
    with torch.no_grad():
        pixels = batch.inputs[None]["pixel_values"]
        logits, whole = subject.model(pixels).logits, subject.model.vit(pixels).last_hidden_state[:, 0]
        for point in entry.all_points:
            cell = cells(made, "vit", "vtp")[point.key]
            assert cell["flop_share"] == pytest.approx(point.value, abs=0.03)
            with vtp(subject.model, keep_ratio=float(cell["how"].split()[1])):
                own, pooled = subject.model(pixels).logits, subject.model.vit(pixels).last_hidden_state[:, 0]
            cosine = torch.cosine_similarity(pooled, whole)
            assert unpack(cell["scores"]["cosine"]) == pytest.approx(cosine.numpy(), abs=1e-5)
            chosen, labels = own.argmax(-1), torch.tensor([item.label for item in batch.items])
            same = (chosen == logits.argmax(-1)).float()
            assert unpack(cell["scores"]["agree"]).tolist() == same.tolist()
            assert unpack(cell["scores"]["top_1"]).tolist() == (chosen == labels).float().tolist()
    whole = cells(made, "vit", "unpruned")["-"]
    assert whole["values"]["agree"] == whole["values"]["cosine"] == 1 and whole["flop_share"] == 1
    published = cells(made, "vit", "tome_published")
    assert all(cell["how"].startswith("r ") and cell["items"]["count"] == 12 for cell in published.values())
    refused = [cells(made, "clip", row)["flops 0.6"]["not_run"] for row in ("cdpruner", "tome_published")]
    assert "prompt" in refused[0] and "reference is written for ViT" in refused[1]


def test_answers_are_those_of_the_model_pruned_there(run, made):
    run("--only", "llava", *METHOD)
    entry = next(entry for entry in read_entries(made / "models.json") if entry.name == "llava")
    subject = measure.load_subject(
        entry, str(made / "llava"), str(made / "questions" / "questions.jsonl"), 99, torch.device("cpu")
    )
    (batch,) = subject.batches()
    inputs, counts = subject.answerer.inputs(batch.images, [q.text for q in batch.questions], Case())
    expected = {"after 0.5": dict(layer="output", keep_ratio=0.5), "tower 0.25": dict(keep_ratio=0.25)}
    unpruned, _ = subject.answerer(Case(), inputs, counts)
    for key, pruned in expected.items():
        cell = cells(made, "llava", "tome")[key]
        with vtp(subject.model, method="tome", **pruned):
            texts, _ = subject.answerer(Case(), inputs, counts)
        same = [float(a == b) for a, b in zip(texts, unpruned, strict=True)]
        assert unpack(cell["scores"]["agreement"]).tolist() == same and cell["total"] == 36
        assert cell["kept"] == {"after 0.5": 18, "tower 0.25": 9}[key] and 0 < cell["flop_share"] < 1
    assert cells(made, "llava", "random")["after 0.5"]["num_runs"] == 2


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--method", "nonsense"], "unknown method 'nonsense'; choose from vtp, "),
        (["--only", "nonsense"], "unknown model 'nonsense'; choose from clip, vit, "),
        (["--folder", "made"], "--folder takes NAME=DIR, not 'made'"),
        (["--folder", "made=/nowhere"], "there is no folder /nowhere"),
        (["--models", "/nowhere.json"], "/nowhere.json cannot be read"),
        (["--render", "--out", "/nowhere"], "there are no results in /nowhere"),
        (["--data", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_wrong_input_is_one_sentence(argv, sentence, made, capsys, tmp_path):
    given = () if "--models" in argv else ("--models", made / "models.json")
    page = ("--page", tmp_path / "page.md")
    code, out, err = run_script("leaderboard", capsys)(*given, *page, *argv)
    assert (code, out, err.count("\n")) == (2, "", 1) and sentence in err, err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "text"}, "is of the kind 'text'; choose from classifier, clip, vlm"),
        ({"metrics": ["beauty"]}, "the unknown metric 'beauty'; choose from top_1"),
        ({"points": {"after": [0.5]}}, "has points for 'after'; a clip takes flops"),
        ({"points": {"flops": [1.5]}}, "must be lists of shares between 0 and 1"),
        ({"colour": "red"}, "the unknown field 'colour'; choose from kind"),
        ({"num_items": 0}, "num_items of the model clip must lie between 1 and"),
        ({"num_items": "all"}, "num_items of the model clip must be of type int, not 'all'"),
    ],
)
def test_a_wrong_file_of_models_is_one_sentence(change, sentence, capsys, tmp_path):
    (tmp_path / "models.json").write_text(json.dumps({"clip": {**CLIP, **change}}))
    code, out, err = run_script("leaderboard", capsys)("--models", tmp_path / "models.json")
    assert (code, out, err.count("\n")) == (2, "", 1) and sentence in err, err


def test_the_committed_models_are_those_of_the_project():
    entries = read_entries(str(SCRIPTS / "leaderboard.json"))
    assert [entry.kind for entry in entries].count("classifier") == 2 and len(entries) == 8
    assert all(entry.shown != entry.name and entry.weights for entry in entries)
    assert not any(path.startswith("/") for entry in entries for path in (entry.model, entry.data))


def test_every_method_has_a_row_those_that_drop_two_and_a_version_of_its_own():
    names = rows()
    assert set(METHODS) <= set(names) and {"qk_topk+absorb", "random+absorb", "downsample"} <= set(names)
    assert "tome+absorb" not in names and "vtp+absorb" not in names and len(names) == len(set(names))
    versions = {version_of(name) for name in METHODS}
    assert len(versions) == len(METHODS) and version_of("scope") != version_of("scope+absorb")
