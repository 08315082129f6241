"""scripts/visualize.py: what it writes, what it says, and what it refuses."""

from pathlib import Path

import load_script
import numpy as np
import pytest
from PIL import Image

from hf_vtp.tools import shipped
from hf_vtp.tools.bench.cli import UsageError, run
from hf_vtp.tools.commands.visualize import main
from hf_vtp.tools.pictures import read_picture
from pictures import REFUSED, TAKEN

pytestmark = pytest.mark.models
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.delenv(shipped.VARIABLE, raising=False)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((300, 200), 90).save(path)
    return str(path)


@pytest.mark.parametrize("model", shipped.STAND_INS)
def test_one_picture_comes_at_its_own_size(photo, tmp_path, capsys, model):
    out = tmp_path / "kept.png"
    asked = [photo, "--model", model, "--method", "random", "--layer", "1"]
    assert run(main, [*asked, "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert f"wrote {out}: 300 x 200 pixels" in output.out and "tokens kept by random" in output.out
    assert "random weights" in output.err
    picture = Image.open(out)
    assert picture.size == (300, 200) and picture.format == "PNG"


def test_more_of_anything_becomes_a_sheet(photo, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    asked = [
        photo,
        "--method",
        "vtp",
        "random",
        "--keep-ratio",
        "0.7",
        "0.3",
        "--panel",
        "64",
        "--out",
        str(out),
    ]
    assert run(main, asked) == 0
    assert "1 image x vtp, random x keep 0.7, 0.3 on clip" in capsys.readouterr().out
    assert Image.open(out).width > 3 * 64


def test_stages_and_scores(photo, tmp_path, capsys):
    out = tmp_path / "heat.png"
    asked = [photo, "--layer", "0", "2", "--method", "qk_topk", "--heat-map", "--out", str(out)]
    assert run(main, asked) == 0
    assert "pruned after layer 0, 2" in capsys.readouterr().out
    assert Image.open(out).width > 600


def test_a_question_for_methods_that_read_it(photo, tmp_path, capsys):
    asked = [photo, "--model", "llava", "--method", "cdpruner", "--out", str(tmp_path / "a.png")]
    assert run(main, asked) == 2
    assert "give one with --question" in capsys.readouterr().err
    assert run(main, [*asked, "--question", "what is there ?"]) == 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--method", "nonsense"], "unknown method 'nonsense'"),
        (["--keep-ratio", "1.5"], "keep_ratio must lie in (0, 1]"),
        (["--layer", "17"], "layer 17 is beyond"),
        (["--method", "cdpruner"], "choose one that needs no text"),
        (["--model", "nobody/nothing"], "is not in the local cache"),
        (["--panel", "5", "--method", "vtp", "random"], "panel must be at least 32"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(photo, tmp_path, capsys, asked, sentence):
    out = tmp_path / "kept.png"
    assert run(main, [photo, *asked, "--out", str(out)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in last
    assert list(tmp_path.glob("*kept*")) == []


def test_the_picture_itself_is_not_written_over(photo, capsys):
    before = Path(photo).read_bytes()
    assert run(main, [photo, "--out", photo]) == 2
    assert "is one of the pictures; give another name" in capsys.readouterr().err
    assert Path(photo).read_bytes() == before


def test_other_files_than_png_are_refused(photo, tmp_path, capsys):
    assert run(main, [photo, "--out", str(tmp_path / "kept.exe")]) == 2
    assert "must end in one of .png" in capsys.readouterr().err


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_no_picture_is_one_sentence_before_it_is_decoded(words, tmp_path, monkeypatch):
    path = REFUSED[words](tmp_path)
    if "pixels" in words or "times" in words:
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UsageError, match=words) as caught:
        read_picture(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("make", TAKEN, ids=lambda make: make.__name__)
def test_odd_pictures_are_upright_rgb(make, tmp_path):
    size, colour = TAKEN[make]
    picture = read_picture(make(tmp_path))
    assert picture.mode == "RGB" and picture.size == size
    assert np.abs(np.array(picture.getpixel((10, 40))) - colour).max() < 4


def test_a_file_of_too_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_vtp.tools.pictures.MOST_BYTES", 2**20)
    with open(tmp_path / "bytes.png", "wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_picture(tmp_path / "bytes.png")


def test_shipped_models_come_first(tmp_path, monkeypatch):
    loaded, trained = shipped.open_model("clip", testbed=tmp_path)
    assert not trained
    loaded.model.save_pretrained(tmp_path / "clip")
    loaded.image_processor.save_pretrained(tmp_path / "clip")
    loaded.tokenizer.save_pretrained(tmp_path / "clip")
    monkeypatch.setenv(shipped.VARIABLE, str(tmp_path))
    again, trained = shipped.open_model("clip")
    assert trained and again.image_processor.size == loaded.image_processor.size
    assert again.tokenizer("what is there ?") == loaded.tokenizer("what is there ?")


def test_a_testbed_that_is_not_there_is_a_sentence(photo, tmp_path, capsys):
    assert run(main, [photo, "--testbed", str(tmp_path / "no"), "--out", str(tmp_path / "a.png")]) == 2
    assert f"there is no folder {tmp_path}/no" in capsys.readouterr().err
    assert shipped.shipped_folder("clip", tmp_path) is None  # it is there, and has no such model


def test_the_repositorys_script_uses_the_repositorys_testbed(photo, tmp_path, capsys):
    out = tmp_path / "kept.png"
    assert load_script.run("visualize", photo, "--method", "random", "--out", out) == 0
    assert "random weights" not in capsys.readouterr().err and out.exists()


def test_the_readmes_snippet_runs(tmp_path, monkeypatch):
    """On the stand-in LLaVA with a real processor."""
    import re

    from transformers import LlavaProcessor

    found = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (snippet,) = [code for code in found if "hf_vtp.visualize" in code]
    loaded, _ = shipped.open_model("llava")
    loaded.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    kwargs = dict(patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor = LlavaProcessor(loaded.image_processor, loaded.tokenizer, image_token="<image>", **kwargs)
    values = dict(
        model=loaded.model, processor=processor, image=Image.effect_noise((90, 60), 90).convert("RGB")
    )
    monkeypatch.chdir(tmp_path)
    exec(snippet, values | {"prompt": "<image> what is there ?"})
    assert Image.open(tmp_path / "kept.png").size == (90, 60)
