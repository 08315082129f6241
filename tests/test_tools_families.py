"""Every tool takes every family, by what its config and its processor say: folders of each pattern."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation import picture, run_script, save_classes, save_questions
from saved import LANGUAGE, save_language, save_vision

import hf_vtp
from hf_vtp import VTPConfig, apply_vtp, list_families, vtp, vtp_stats
from hf_vtp.tools.cards.card import make_card, read_result
from hf_vtp.tools.demo.session import Session
from hf_vtp.tools.models import load_with_processor
from hf_vtp.tools.prompts import image_inputs
from hf_vtp.tools.towers import embedding
from hf_vtp.tuning.candidates import METHODS_TRIED, make_candidates
from hf_vtp.visualize import contact_sheet, draw_kept, preview
from hf_vtp.visualize.geometry import NoGrid, boxes

pytestmark = pytest.mark.models
PACKAGE = Path(hf_vtp.__file__).parent
DUAL = {
    "clip": "CLIPModel",
    "siglip": "SiglipModel",
    "siglip2": "Siglip2Model",
    "metaclip_2": "MetaClip2Model",
    "altclip": "AltCLIPModel",
    "chinese_clip": "ChineseCLIPModel",
    "aimv2": "Aimv2Model",
}
ALONE = {"dinov2": "Dinov2Model", "ijepa": "IJepaModel", "vit": "ViTForImageClassification"}
VISION = {**DUAL, **ALONE}
AFTER = "llava_onevision"  # it has no row, and lays its tokens out in a line
IN_TOWER = [name for name in LANGUAGE if name != AFTER]
METHODS = {AFTER: "divprune"}  # which reads nothing of a tower's layers
QUICK = ("--seeds", 1, "--rounds", 1, "--keep-ratio", 1.0, "--method", "divprune", "--device", "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    for model_type, name in VISION.items():
        save_vision(root / model_type, model_type, name)
    for model_type in LANGUAGE:
        save_language(root / model_type, model_type)
    save_classes(root / "photos")
    save_questions(root / "q", count=2, sizes=((40, 24),))
    return root


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(name, *argv):
        code, out, err = run_script(name, capsys)(*argv)
        assert code == 0, err
        return json.loads(out.splitlines()[-1])

    return run


@pytest.mark.parametrize("model_type", DUAL)
def test_eval_clip_compares_images_with_texts(root, run, model_type, tmp_path):
    argv = ("--model", root / model_type, "--data", root / "photos", "--layer", 0, *QUICK)
    result = run("eval_clip", *argv, "--json", tmp_path / "r.json")
    rows = {row["method"]: row for row in result["rows"]}
    unpruned, whole = rows["unpruned"], rows["divprune"]
    assert result["tasks"] == ["zero-shot"] and result["num_items"] == 12
    assert whole["cosine_min"] == pytest.approx(1) and whole["top_1"] == unpruned["top_1"]
    assert whole["kept_tokens"] == unpruned["total_tokens"] == unpruned["kept_tokens"]
    assert "downsample" in rows or model_type == "aimv2"
    card = make_card("user/base", [read_result(tmp_path / "r.json")], tmp_path, name="pruned")
    assert card.data.tags[-1] == model_type and card.data.pipeline_tag == "zero-shot-image-classification"


def test_eval_clip_counts_the_patches_of_images_of_any_shape(root, run):
    argv = ("--model", root / "siglip2", "--data", root / "photos", "--layer", 0, *QUICK, "--keep-ratio", 0.5)
    rows = {row["method"]: row for row in run("eval_clip", *argv)["rows"]}
    assert rows["unpruned"]["kept_tokens"] == 16 and rows["divprune"]["kept_tokens"] == 8
    assert rows["downsample"]["kept_tokens"] <= 8


@pytest.mark.parametrize("model_type", LANGUAGE)
def test_eval_vlm_asks_every_model(root, run, model_type):
    argv = ("--model", root / model_type, "--data", root / "q" / "questions.jsonl", *QUICK)
    argv += ("--max-new-tokens", 2, "--layer", "output")
    result = run("eval_vlm", *argv, "--predictions", "p.jsonl")
    _, *answers = map(json.loads, Path("p.jsonl").read_text().splitlines())
    said = {}
    for row in answers:
        said.setdefault(row["id"], {})[row["case"]] = row
    assert len(said) == 2 and result["model_type"] == model_type
    for cases in said.values():
        unpruned = cases["unpruned"]
        pruned = [row for name, row in cases.items() if name.startswith("divprune")]
        assert len(pruned) == 1 and pruned[0]["prediction"] == unpruned["prediction"]
        assert pruned[0]["kept_tokens"] == unpruned["kept_tokens"]
        assert unpruned["kept_tokens"] == unpruned["total_tokens"] > 0


@pytest.mark.parametrize("model_type", [*VISION, *LANGUAGE])
def test_tune_finds_a_config(root, run, model_type):
    argv = ("--model", root / model_type, "--images", root / "photos", "--by", "flops", "--device", "cpu")
    argv += ("--method", METHODS.get(model_type, "uniform"), "--target", 0.2, "--budget", 2)
    argv += ("--layer", "output" if model_type in LANGUAGE else 0, "--max-new-tokens", 1, "--batch-size", 3)
    result = run("tune", *argv)
    assert result["quality"] == ("agreement" if model_type in LANGUAGE else "cosine")
    searched = 3 if model_type in LANGUAGE else 4  # of language models in whole batches
    assert result["num_images"] == {"search": searched, "check": 12 - searched}
    assert result["config"]["model_type"] == model_type


def test_tune_leaves_out_the_default_methods_that_do_not_fit(root):
    model = load_with_processor(str(root / AFTER)).model
    fit = make_candidates(model, METHODS_TRIED, None, ["linear"], VTPConfig())
    assert {"divprune"} <= {one.method for one in fit} < set(METHODS_TRIED)
    with pytest.raises(ValueError, match="how those of"):
        make_candidates(model, ["tome"], None, ["linear"], VTPConfig())


@pytest.mark.parametrize("model_type", VISION)
def test_the_embedding_is_the_models_own(root, model_type):
    loaded = load_with_processor(str(root / model_type))
    inputs = image_inputs(loaded.model, loaded.processor, [picture(0, 16, 16)])
    with torch.no_grad():
        found = embedding(loaded.model, inputs)
        if model_type in DUAL:
            wanted = loaded.model.get_image_features(**inputs).pooler_output
        else:
            output = loaded.model(**inputs)
            wanted = {
                "vit": lambda: output.logits,
                "dinov2": lambda: output.pooler_output,
                "ijepa": lambda: output.last_hidden_state.mean(dim=1),
            }[model_type]()
        assert torch.equal(found, wanted)
        with vtp(loaded.model, keep_ratio=1.0):
            assert torch.equal(embedding(loaded.model, inputs), wanted)


def parts_of(drawn, places, size):
    """(the corner of the panel, the part of the picture in it) of each image; panels stand in one row."""
    x = 0
    for box in places:
        left, top = (max(0, round(edge)) for edge in box[:2])
        right, bottom = (min(n, round(edge)) for n, edge in zip(size, box[2:], strict=True))
        if len(places) == 1:
            left, top, right, bottom = 0, 0, *size
        yield (x, drawn.shape[0] - (bottom - top)), (left, top, right, bottom)
        x += right - left + 8


@pytest.mark.parametrize("model_type", [*VISION, *IN_TOWER])
def test_kept_tokens_are_clear_where_they_lie_in_the_picture(root, model_type):
    loaded = load_with_processor(str(root / model_type))
    shown = picture(0, 160, 96)
    apply_vtp(loaded.model, method="qk_topk", keep_ratio=0.5, layer=0)
    preview(loaded.model, loaded.processor, shown)
    stats = vtp_stats(loaded.model)
    drawn, before = np.asarray(draw_kept(shown, stats, loaded.processor, stage=-1)), np.asarray(shown)
    places = boxes(shown.size, stats.grids[0], loaded.processor)
    assert len(places) == len(stats.grids)
    assert (len(places) > 1) == (model_type in ("idefics3", "internvl", "llava_next"))
    for i, ((x0, y0), (x1, y1, x2, y2)) in enumerate(parts_of(drawn, places, shown.size)):
        left, top, right, bottom = places[i]
        _, rows, columns = stats.grids[i]
        kept, seen = set(stats.keep_indices[i].tolist()), 0
        for n in range(rows * columns):
            x = int(left + (n % columns + 0.5) * (right - left) / columns)
            y = int(top + (n // columns + 0.5) * (bottom - top) / rows)
            if x1 < x < x2 - 1 and y1 < y < y2 - 1:  # not on padding
                was = before[y - 1 : y + 2, x - 1 : x + 2]
                now = drawn[y0 + y - y1 - 1 :, x0 + x - x1 - 1 :][:3, :3]
                assert (was == now).all() == (n in kept), (i, n)
                seen += 1
        assert seen >= rows


@pytest.mark.parametrize("model_type", [*VISION, *LANGUAGE])
def test_the_demo_and_the_sheet_take_every_model(root, model_type, monkeypatch):
    monkeypatch.setattr("hf_vtp.tools.demo.session.ROUNDS", 1)
    monkeypatch.setattr("hf_vtp.tools.demo.answer.NEW_TOKENS", 2)
    session, method = Session(), METHODS.get(model_type, "uniform")
    shown = session.ask(picture(0, 64, 48), "w5, w6", str(root / model_type), [method], 1.0)
    unpruned, whole = shown.rows
    assert unpruned.answer == whole.answer and unpruned.kept == whole.kept == whole.tokens > 1
    assert [max(drawn.size) for drawn in shown.pictures] == [448]
    loaded = session.models[str(root / model_type)][0]
    sheet = (loaded.model, loaded.processor, [picture(0, 64, 48)], [method], [0.5])
    if model_type == AFTER:
        with pytest.raises(NoGrid, match="no grid"):
            contact_sheet(*sheet, panel=64)
    else:
        assert contact_sheet(*sheet, panel=64).width > 128


def test_no_tool_names_a_family():
    """A string that is a model_type stands in rows, in recipes of tiny models and where models are named."""
    free = ("families/rows.py", "verifying/tiny/", "tools/testbed/", "tools/bench/geometry.py")
    free += ("tools/shipped.py", "tools/commands/train_testbed.py")  # the testbed's three models
    words = {"clip": "names a benchmark's or an evaluation's kind of results, and a whole video"}
    found = {}
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        if not name.startswith(free):
            nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)]
            named = {node.value for node in nodes if isinstance(node.value, str)} & set(list_families())
            if named - set(words):
                found[name] = named
    assert found == {}
