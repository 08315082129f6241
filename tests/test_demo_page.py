"""What the demo's page shows and says, without a browser; needs gradio where it is about its parts."""

import html
import os
import subprocess
import sys

import pytest
from load_script import run
from PIL import Image

from hf_vtp import list_methods
from hf_vtp.tools import shipped
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.demo import session as module
from hf_vtp.tools.demo import words
from hf_vtp.tools.demo.session import UNPRUNED, Row, Session, Shown
from pictures import REFUSED

pytestmark = pytest.mark.models
QUESTION = "what is there ?"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    monkeypatch.setattr(module, "ROUNDS", 1)
    monkeypatch.setattr("hf_vtp.tools.demo.answer.NEW_TOKENS", 4)


@pytest.fixture
def page():
    """The module; its page is not opened."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from hf_vtp.tools.demo import page

    return page


@pytest.mark.parametrize("wanted", REFUSED)
def test_bad_uploads_are_a_sentence_in_the_page(page, wanted, tmp_path):
    path = str(REFUSED[wanted](tmp_path))
    shown, problem = page.choose(page.OWN, path)
    assert shown is None
    assert wanted.split(";")[0] in problem and "\n" not in problem
    for upload, problem_then in ((path, problem), (None, "There is no picture to run on")):
        sentence, numbers, pictures, _, _ = page.click(
            Session(), str(tmp_path), page.OWN, upload, QUESTION, "llava", ["vtp"], 0.5, False
        )
        assert problem_then in sentence and numbers == "" and pictures == []


def test_the_page_escapes_what_models_and_files_say():
    rows = [Row(UNPRUNED, 4, 4, 10, 1.0, "<script>alert(1)</script>")]
    assert "<script>" not in words.table(rows) and "&lt;script&gt;" in words.table(rows)
    assert "<img" not in words.sentence(UsageError("<img src=x> is no image"))


def test_the_page_says_how_chosen_methods_differ_from_released_code():
    differing = next(name for name, row in list_methods().items() if row["differs"])
    said = words.differences(["vtp", differing, "no such method"])
    assert html.unescape(said) == f"<p><code>{differing}</code> {list_methods()[differing]['differs']}</p>"
    assert words.differences(["vtp", "random"]) == words.differences([]) == ""


def test_a_change_of_methods_changes_what_is_said_of_them(page):
    parts = page.build(Session()).config
    shown = {part["props"].get("elem_id"): part["id"] for part in parts["components"]}
    change = (shown["methods"], "change")
    calls = [call for call in parts["dependencies"] if change in map(tuple, call["targets"])]
    assert [call["outputs"] for call in calls] == [[shown["differs"]]]


def test_a_problem_is_a_paragraph_of_plain_words():
    shown = words.sentence(UsageError("unknown method 'kn_orm'; choose from ['vtp', 'a*b*c']"))
    assert html.unescape(shown) == "<p>Unknown method 'kn_orm'; choose from ['vtp', 'a*b*c'].</p>"
    assert words.sentence("my photo.png is broken") == "<p>My photo.png is broken.</p>"
    assert words.sentence("photo.png is no image.") == "<p>photo.png is no image.</p>"


def test_whatever_goes_wrong_is_a_sentence_and_the_page_lives(page, tmp_path, monkeypatch, capsys):
    session, asked = (
        Session(),
        (page.OWN, str(tmp_path / "own.png"), QUESTION, "llava", ["random"], 0.5, False),
    )
    Image.new("RGB", (60, 60)).save(tmp_path / "own.png")
    with monkeypatch.context() as broken:
        broken.setattr(session, "ask", lambda *_: {}["no such key"])
        problem, *rest = page.click(session, str(tmp_path), *asked)
    assert problem == "<p>This cannot be done (KeyError: &#x27;no such key&#x27;).</p>" and rest[0] == ""
    assert "Traceback" in capsys.readouterr().err  # for whoever runs the page
    problem, numbers, pictures, _, note = page.click(session, str(tmp_path), *asked)
    assert problem == "" and "72 of 144" in numbers and len(pictures) == 1
    assert "weights are random" in note and (tmp_path / "kept.png").is_file()


def test_the_page_says_what_the_testbeds_models_know(page, tmp_path, monkeypatch):
    picture = str(page.SAMPLES[next(iter(page.SAMPLES))])
    made = Shown([Row(UNPRUNED, 4, 4, 10, 1.0, "red")], [], Image.new("RGB", (9, 9)), trained=True)
    session = Session()
    monkeypatch.setattr(session, "ask", lambda *_: made)
    for model, known in (("llava", True), ("my/folder", False)):
        note = page.click(session, str(tmp_path), page.OWN, picture, QUESTION, model, ["vtp"], 0.5, False)[-1]
        assert ("trained on drawn scenes" in note) == known and "FLOPs" in note


def test_a_model_that_is_not_there_ends_the_script_in_one_sentence(monkeypatch, capsys):
    pytest.importorskip("gradio", reason="gradio is not installed")
    monkeypatch.setattr("gradio.Blocks.launch", lambda *_, **__: pytest.fail("opened"))
    assert run("demo", "--model", "nobody/nothing") == 2
    said = capsys.readouterr()
    assert "is not in the local cache" in said.err and "open http" not in said.out


def test_a_space_is_laid_out_whole(tmp_path, capsys):
    """What is pushed runs by itself: its package comes from the folder, and every import is there."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    assert run("push_demo", "--to", tmp_path / "space") == 0
    space = tmp_path / "space"
    for name in ("README.md", "requirements.txt", "app.py", "NOTICE", "hf_vtp", "hf_vtp/tools/demo/samples"):
        assert (space / name).exists(), name
    metadata = (space / "README.md").read_text().split("---")[1]
    assert "sdk: gradio" in metadata and "app_file: app.py" in metadata
    others = [
        path
        for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if "hf_vtp" not in os.listdir(path or ".")
    ]
    code = "import app, hf_vtp; from hf_vtp.tools.demo.session import Session; "
    code += "app.build(Session()); print(hf_vtp.__file__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(space), *others])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=space, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith(str(space))
