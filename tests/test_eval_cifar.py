"""scripts/eval_cifar_clip.py on a folder of noise and a tiny random CLIP, and what it refuses."""

import importlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from models import clip_config, sharpen
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from hf_vtp.measure import cli

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "eval_cifar_clip.py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LETTERS = [*"abcdefghijklmnopqrstuvwxyz."]
pytestmark = pytest.mark.models


@pytest.fixture
def run(monkeypatch, capsys):
    """The script's main on some arguments, in this process: (exit code, stdout, stderr)."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr("sys.argv", [f"scripts/{SCRIPT.name}"])
    main = importlib.import_module(SCRIPT.stem).main
    return lambda *argv: (cli.run(main, [str(word) for word in argv]), *capsys.readouterr())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The layout the script reads, with two images of each class."""
    folder = tmp_path_factory.mktemp("data")
    config = clip_config(image_size=32)
    config.text_config.vocab_size, config.text_config.max_position_embeddings = 56, 77
    config.text_config.eos_token_id = 55
    sharpen(CLIPModel(config)).save_pretrained(folder / "models" / "clip_cifar10")
    words = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(folder / "models" / "clip_cifar10")
    (folder / "cifar10_test").mkdir()
    with zipfile.ZipFile(folder / "cifar10_test" / "images.zip", "w") as archive:
        for i, name in enumerate(CLASSES):
            for j in range(2):
                image = io.BytesIO()
                Image.effect_noise((32, 32), 20 + 10 * i + j).convert("RGB").save(image, "JPEG")
                archive.writestr(f"{name}/{j:04d}.jpg", image.getvalue())
    return folder


def test_rows_for_every_method_and_ratio(run, data, tmp_path):
    methods = ["vtp", "qk_topk", "random+absorb"]
    file = tmp_path / "out.json"
    options = ["--num-images", 20, "--keep-ratio", 1, 0.5, "--json", file, "--method", *methods]
    code, out, _ = run("--data", data, *options)
    result = json.loads(out.splitlines()[-1])
    assert code == 0 and result == json.loads(file.read_text())
    assert result["num_images"] == 20 and result["command"].startswith("python ")
    rows = {(row["method"], row["keep_ratio"]): row for row in result["rows"]}
    assert list(rows) == [("unpatched", None), *((m, r) for r in (1.0, 0.5) for m in methods)]
    for (method, ratio), row in rows.items():
        assert row["kept_tokens"] == round(64 * (ratio or 1)) and row["total_tokens"] == 64
        exact = method == "unpatched" or ratio == 1
        assert row["cosine_mean"] == pytest.approx(1, abs=1e-6) if exact else row["cosine_mean"] < 0.99999
        assert row["accuracy"] == pytest.approx(round(row["accuracy"] * 20) / 20)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--num-images", "15"], "multiple of 10"),
        (["--num-images", "30"], "at most 20"),
        (["--num-images", "0"], "at least 1"),
        (["--method", "vpt"], "unknown method 'vpt'; choose from"),
        (["--method", "vtp+absrob"], "unknown merger 'absrob'; choose from"),
        (["--keep-ratio", "1.5"], "(0, 1]"),
        (["--layer", "9"], "choose from 0 to 3"),
        (["--data", "nowhere"], "give the folder that has both with --data"),
        (["--json", "nowhere/out.json"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(run, data, argv, says):
    code, out, err = run("--data", data, "--num-images", 10, *argv)
    assert code == 2 and not out
    assert err.startswith("eval_cifar_clip.py: ") and says in err and err.count("\n") == 1
