"""What the README and CONTRIBUTING say is what the package does."""

import json
import re
from pathlib import Path

import pytest
import torch
from load_script import script
from models import clip, clip_vision, pixels
from qwen import Qwen
from transformers import AutoModelForImageTextToText, CLIPModel

import hf_vtp
from hf_vtp import list_families, list_methods
from hf_vtp.methods.scorers import SCORERS
from hf_vtp.methods.table import PARTS
from hf_vtp.tools.leaderboard.store import FORMAT

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
pytestmark = pytest.mark.models


def block(name):
    return README.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


def first_cells(text):
    return [line.split("|")[1].strip().strip("`") for line in text.splitlines() if line.startswith("|")][2:]


def snippets(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def test_the_tables_are_what_make_readme_writes():
    assert script("update_readme").fill(README) == README, "run `make readme`"


def test_the_method_table_lists_every_method():
    assert first_cells(block("methods")) == list(list_methods())


def test_the_model_table_lists_every_family():
    cells = [line.split("|")[-3] for line in block("models").splitlines() if line.startswith("|")][2:]
    assert sorted(re.findall(r"`(\w+)`", "".join(cells))) == sorted(list_families())


def test_the_snippets_of_the_readme_run(monkeypatch, capsys):
    """One after the other, on a tiny random model in place of the one from the Hub."""
    model, pixel_values = clip("CLIPModel"), pixels(2)
    before = model.get_image_features(pixel_values=pixel_values).pooler_output
    vlm, inputs = Qwen.model(), Qwen.inputs((1, 2))
    monkeypatch.setattr(CLIPModel, "from_pretrained", lambda name: model)
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", lambda name: vlm)
    # those of the Hub run in test_hub_readme.py, of pictures in test_visualize_script.py, tune in test_tune
    elsewhere = ("@register", "user/", "hf_vtp.visualize", "tune(")
    found = [code for code in snippets("README.md") if not any(words in code for words in elsewhere)]
    assert len(found) == 4
    clip_names, names = {"pixel_values": pixel_values}, {"inputs": inputs}
    for snippet, namespace in zip(found, (clip_names, clip_names, names, names), strict=True):
        exec(snippet, namespace)
    assert names["new_tokens"].shape == (2, 64)
    kept, _, table = capsys.readouterr().out.partition("\n")
    assert kept == str([round(0.7 * 36)] * 2)
    assert "generate" in table and "holds" in table and "FAILS" not in table
    assert torch.equal(model.get_image_features(pixel_values=pixel_values).pooler_output, before)


def test_the_parts_of_the_readme_work_in_every_family():
    (snippet,) = [snippet for snippet in snippets("README.md") if "@register" in snippet]
    assert len([line for line in snippet.splitlines() if line]) == 10
    parts = {"scorer": "energy", "selector": "best", "merger": "keep_only"}
    try:
        exec(snippet, {})
        for model, inputs in (
            (clip_vision(), {"pixel_values": pixels(2)}),
            (Qwen.model(), Qwen.inputs((1, 2))),
        ):
            hf_vtp.apply_vtp(model, **parts, keep_ratio=0.5, layer=1)
            model(**inputs)
            stats = hf_vtp.vtp_stats(model)
            assert stats.num_kept == [round(0.5 * n) for n in stats.num_tokens]
            scores, kept = stats.stages[0].scores[0], stats.keep_indices[0]
            assert set(scores.topk(len(kept)).indices.tolist()) == set(kept.tolist())
    finally:
        for part, name in parts.items():
            PARTS[part].pop(name, None)


def test_every_part_is_in_the_file_of_its_name_or_on_the_page_of_the_method_that_uses_it():
    helpers = {"lloyd"}  # an option of every merger
    for part, table in PARTS.items():
        folder = ROOT / "hf_vtp" / "methods" / f"{part}s"
        files = {file.stem for file in folder.glob("*.py")} - {"__init__"} - helpers
        places = {name: entry.function.__module__.split(".")[2:] for name, entry in table.items()}
        assert files == {name for name, place in places.items() if place == [f"{part}s", name]}, part
        for name in set(table) - files:
            (page,) = places[name]
            source = (ROOT / "hf_vtp" / "methods" / f"{page}.py").read_text()
            assert f'{part}="{name}",' in source, (part, name)
        listed = [
            line.split("|")[2].strip(" `") for line in block("parts").splitlines() if f"| {part} |" in line
        ]
        assert listed == list(table)


def test_every_source_has_its_number():
    for name, row in list_methods().items():
        if row["paper"] and row["paper"] != "this project":
            assert "arXiv:" in row["paper"] or re.search(
                r"\((.*, 20\d\d|.* report, 20\d\d)\)", row["paper"]
            ), name


def test_the_scorer_of_contributing_works():
    (snippet,) = snippets("CONTRIBUTING.md")
    try:
        exec(snippet, {})
        model = hf_vtp.apply_vtp(clip("CLIPModel"), scorer="key_spread", selector="top_k", keep_ratio=0.5)
        model.get_image_features(pixel_values=pixels(2))
        scores = hf_vtp.vtp_stats(model).stages[0].scores[0]
        assert scores.shape == (36,) and scores.isfinite().all()
    finally:
        SCORERS.pop("key_spread", None)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "model_cards/README.md"])
def test_links_and_named_files_exist(name):
    text = (ROOT / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"(?<![\w/])(?:hf_vtp|scripts|tests|model_cards)/[\w./-]+\.(?:py|json|md)", text)
    assert all((ROOT / path).exists() for path in named)
    assert all(((ROOT / name).parent / path).exists() for path in links)


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(
        re.findall(r"^make (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    )
    assert {"demo", "test"} <= named <= targets


def test_every_result_is_listed_with_its_command():
    listed = (ROOT / "model_cards" / "README.md").read_text()
    for file in (ROOT / "model_cards" / "results").rglob("*.json"):
        name = file.relative_to(ROOT / "model_cards").as_posix()
        result = json.loads(file.read_text())
        if result.get("format") == FORMAT:  # a file for each row; the page shows their commands
            assert "`results/leaderboard`" in listed
            assert not [c for c in result["cells"].values() if " /" in c["command"]], name
            continue
        command = result["command"]
        assert f"`{name}`" in listed, name
        assert f"--json model_cards/{name}" in command and " /" not in command, command
