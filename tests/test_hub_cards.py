"""Model cards: the committed ones are current, and every number of theirs is a row of a result."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_vtp.tools.bench import cli
from hf_vtp.tools.cards.card import make_card, read_result
from hf_vtp.tools.cards.kinds import family_of, task_of
from hf_vtp.tools.commands import COMMANDS, make_model_card, push_to_hub

ROOT = Path(__file__).resolve().parent.parent
CARDS = ROOT / "model_cards"
LISTED = json.loads((CARDS / "cards.json").read_text())
ANSWERED = {
    "eval_testbed_llava": "llava",
    "eval_cifar_llava": "llava",
    "eval_testbed_qwen2_5_vl": "qwen2_5_vl",
}
SPEED = CARDS / "results" / "cpu-2core" / "clip_vit_b16_fp32.json"


def body(name):
    return (CARDS / name).read_text().split("---\n", 2)[2]


def results(name):
    return [json.loads((CARDS / path).read_text()) for path in LISTED[name]["results"]]


def run(module, *argv):
    return cli.run(module.main, [str(a) for a in argv])


def changed(path, target, **changes):
    result = json.loads(path.read_text()) | changes
    target.write_text(json.dumps(result))
    return target


def test_the_committed_cards_are_current():
    made = make_model_card.listed(CARDS)
    assert {"openai/clip-vit-base-patch16", "llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct"} == {
        row["model"] for row in LISTED.values()
    }
    for name, card in made.items():
        assert str(card) == (CARDS / name).read_text(), f"{name}: run `make cards`"


@pytest.mark.parametrize("name", LISTED)
def test_the_metadata_is_valid_and_its_numbers_were_measured(name):
    data = ModelCard.load(CARDS / name).data
    assert (data.base_model, data.library_name, data.license) == (
        LISTED[name]["model"],
        "hf-vtp",
        "apache-2.0",
    )
    assert "hf-vtp" in data.tags and data.pipeline_tag
    measured = {path.split("/")[-1].removesuffix(".json"): path for path in LISTED[name]["results"]}
    assert {e.dataset_config for e in data.eval_results} == set(measured)
    for evaluation in data.eval_results:
        rows = json.loads((CARDS / measured[evaluation.dataset_config]).read_text())["rows"]
        method = re.search(r"\((\S+?)[,)]", evaluation.metric_name)[1]
        own = [value for row in rows if row["method"] == method for value in row.values()]
        assert any(type(v) is float and round(v, 4) == evaluation.metric_value for v in own), evaluation


@pytest.mark.parametrize("name", LISTED)
def test_the_body_says_what_was_measured_on_what(name):
    text = body(name)
    assert f"Nothing here was measured on the trained weights of {LISTED[name]['model']}." in text
    assert "Random weights show speed and say nothing about quality." in text
    for result in results(name):
        if "evaluation" in result:
            assert "not of this model" in text
        command = " ".join(result["command"].split())
        assert command in " ".join(text.replace("\\\n", " ").split())
        machine = result["environment"]
        for words in (f"torch {machine['torch']}", f"{machine['device_name']}, {machine['threads']} threads"):
            assert words in text
    completes = re.search(r"## What completes this card.*?```bash\n(.*?)```", text, flags=re.DOTALL)[1]
    assert f"--model {LISTED[name]['model']}" in completes and "hf-vtp make-model-card" in completes
    for named in re.findall(r"scripts/\w+\.py", text):
        assert (ROOT / named).is_file()
    commands = set(re.findall(r"hf-vtp ([a-z-]+) ", completes))
    assert len(commands) == 2 and commands <= set(COMMANDS)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert "://" in link or (CARDS / link).is_file(), link


@pytest.mark.parametrize("name", LISTED)
def test_a_number_that_was_not_measured_does_not_appear(name):
    text = body(name)
    assert not re.search(r"\bn/a\b|\bNone\b|\bnan\b|\bnull\b|TODO|TBD|CUDA", text)
    speed = text.split("### Speed")[1].split("###")[0]
    assert "cosine" not in speed and "accuracy" not in speed
    data = ModelCard.load(CARDS / name).data
    kinds = {e.metric_type for e in data.eval_results if e.dataset_type == "speed"}
    assert kinds == {"speedup"}


def test_numbers_of_the_very_weights_complete_a_card(tmp_path):
    path = changed(SPEED, tmp_path / "trained.json", weights="pretrained")
    card = make_model_card.card("openai/clip-vit-base-patch16", [path], tmp_path)
    assert "Nothing here" not in card.text and "What completes" not in card.text
    assert "with its trained weights" in card.text and "Random weights" not in card.text
    other = make_model_card.card("openai/clip-vit-large-patch14", [path], tmp_path)
    assert "Nothing here was measured on the trained weights of openai/clip-vit-large-patch14" in other.text


def test_a_cosine_that_was_measured_appears(tmp_path):
    result = json.loads(SPEED.read_text())
    result["rows"][3]["cosine_mean"] = 0.98765
    path = changed(SPEED, tmp_path / "some.json", rows=result["rows"])
    card = make_card("a/b", [read_result(path)], tmp_path, name="x")
    assert "cosine mean" in card.text and "0.9877" in card.text
    assert [e.metric_value for e in card.data.eval_results if e.metric_type == "cosine"] == [0.9877]


def test_a_text_from_a_result_cannot_break_the_card(tmp_path):
    rows = json.loads(SPEED.read_text())["rows"]
    rows[1]["method"] = "a | b\n# heading {{ name }}"
    path = changed(SPEED, tmp_path / "odd.json", rows=rows)
    card = make_card("a/b", [read_result(path)], tmp_path, name="x: [y")
    assert ModelCard(str(card)).data.eval_results == card.data.eval_results
    assert r"| a \| b # heading {{ name }} |" in card.text


BROKEN = {
    "missing": (None, "cannot be read"),
    "not JSON": ("{", "is no result"),
    "a list": ("[]", "is no result"),
    "another kind": ('{"benchmark": "bert", "rows": []}', "is no result"),
    "no rows": ('{"benchmark": "clip"}', "is no result"),
    "a row of text": ('{"benchmark": "clip", "rows": ["a"]}', "is no result"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("which", [make_model_card, push_to_hub])
def test_a_result_that_is_none_is_refused(name, which, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content, says = BROKEN[name]
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    before = sorted(tmp_path.iterdir())
    model = ["--model", "openai/clip-vit-base-patch16", "--results", "r.json"]
    push = ["--weights", "random", "--keep-ratio", "0.5", "--repo", "user/x", "--dry-run"]
    assert run(which, *model, *(push if which is push_to_hub else [])) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_results_of_two_families_make_no_card(tmp_path, capsys):
    other = SPEED.with_name("llava_small_fp32.json")
    out = tmp_path / "card.md"
    assert run(make_model_card, "--model", "a/b", "--results", SPEED, other, "--out", out) == 2
    assert "of one family, not of 2" in capsys.readouterr().err and not out.exists()


def test_families_that_this_code_does_not_name_have_cards_too(tmp_path):
    result = json.loads(SPEED.with_name("llava_small_fp32.json").read_text())
    path = changed(SPEED.with_name("llava_small_fp32.json"), tmp_path / "r.json", benchmark="idefics3")
    card = make_card("a/b", [read_result(path)], tmp_path, name="x")
    assert card.data.pipeline_tag == "image-text-to-text" and "idefics3" in card.data.tags
    assert len(card.data.eval_results) == 2 * sum(row["method"] != "unpatched" for row in result["rows"])
    assert "hf-vtp bench-vlm --model a/b" in card.text
    assert task_of("siglip").loader == "SiglipModel" and task_of("dinov2").loader == "AutoModel"
    both = [read_result(path), read_result(SPEED.with_name("llava_small_fp32.json"))]
    with pytest.raises(cli.UsageError, match="of one family, not of 2"):
        make_card("a/b", both, tmp_path, name="x")
    of_two = [
        changed(SPEED, tmp_path / f"{n}.json", benchmark=n, rows=result["rows"])
        for n in ("qwen2_vl", "qwen2_5_vl")
    ]
    assert make_card("a/b", map(read_result, of_two), tmp_path, name="x")  # of one row


@pytest.mark.parametrize(
    ("model_type", "family", "loader"),
    [
        ("clip_vision_model", "clip", "CLIPModel"),
        ("siglip_vision_model", "siglip", "SiglipModel"),
        ("dinov2", "dinov2", "AutoModel"),
        (None, "clip", "CLIPModel"),  # of results from before other towers were measured
    ],
)
def test_a_tower_is_of_the_family_of_the_model_around_it(model_type, family, loader):
    result = {"benchmark": "clip", "model_type": model_type}
    assert family_of(result) == family and task_of(family).loader == loader


def test_answers_belong_to_the_family_of_their_model():
    """One kind of evaluation serves every family that answers."""
    of = {name: read_result(SPEED.with_name(f"{name}.json")).family for name in ANSWERED}
    assert of == ANSWERED


PUSH = ["--model", "openai/clip-vit-base-patch16", "--weights", "random", "--results", SPEED, "--dry-run"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--keep-ratio", "1.5", "--repo", "user/x"], "keep_ratio must lie in (0, 1]"),
        (["--keep-ratio", "0.5", "--repo", "user"], "--repo must be a name on the Hub"),
        (["--keep-ratio", "0.5", "--repo", "../x"], "--repo must be a name on the Hub"),
        (["--keep-ratio", "0.5", "--repo", "user/x", "--method", "vpt"], "unknown method 'vpt'"),
        (["--keep-ratio", "0.5", "--repo", "user/x", "--layer", "12"], "layer 12 is beyond"),
        (["--keep-ratio", "0.5", "--repo", "user/x", "--base-model", "/a"], "--base-model must be a name"),
        (["--keep-ratio", "0.5", "--repo", "user/x", "--model", "no/such"], "no geometry is known"),
        (["--keep-ratio", "0.5", "--repo", "user/x", "--folder", "full"], "holds other files"),
        (
            ["--keep-ratio", "0.5", "--repo", "user/x", "--model", "llava-tiny"],
            "of the model's family, llava",
        ),
        (["--keep-ratio", "0.5"], "--repo"),
    ],
)
def test_wrong_input_to_the_push_is_one_sentence(changes, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    assert run(push_to_hub, *PUSH, *changes) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "README.md"]
    assert (tmp_path / "full" / "README.md").read_text() == "mine"


def test_a_dry_run_writes_what_it_would_push_and_prints_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(push_to_hub, *PUSH, "--keep-ratio", "0.5", "--repo", "user/clip-half") == 0
    folder = tmp_path / "artifacts" / "user--clip-half"
    names = {"README.md", "vtp_config.json", SPEED.name, SPEED.with_suffix(".png").name}
    assert {path.name for path in folder.iterdir()} == names
    printed = capsys.readouterr().out
    assert all(name in printed for name in names) and "nothing was pushed" in printed
    config = json.loads((folder / "vtp_config.json").read_text())
    assert config["base_model_name_or_path"] == "openai/clip-vit-base-patch16"
    assert (config["keep_ratio"], config["num_layers"]) == (0.5, 12)
    card = ModelCard.load(folder / "README.md")
    pruned = [row for row in json.loads(SPEED.read_text())["rows"] if row["method"] != "unpatched"]
    assert 'apply_vtp(model, "user/clip-half")' in card.text
    assert len(card.data.eval_results) == len(pruned) == 12
    assert f"![Speed, batch 8]({SPEED.stem}.png)" in card.text
    again = [*PUSH[:-2], folder / SPEED.name, "--dry-run", "--keep-ratio", "0.3", "--repo", "user/clip-half"]
    assert run(push_to_hub, *again) == 0
    assert json.loads((folder / "vtp_config.json").read_text())["keep_ratio"] == 0.3
