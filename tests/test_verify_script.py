"""scripts/verify.py: what it prints and writes, its exit codes, and what it refuses."""

import json

import pytest
from families import classes, made
from load_script import SCRIPTS, run
from PIL import Image
from processed import save_with_processor

from hf_vtp.tools import verify_inputs

pytestmark = pytest.mark.models


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, size in zip(paths, ((120, 90), (90, 150)), strict=True):
        Image.effect_noise(size, 90).save(path)
    return [str(path) for path in paths]


def command(capsys, *argv):
    """The exit code of scripts/verify.py, its table, its JSON line and what it says on stderr."""
    code = run("verify", *argv)
    out, err = capsys.readouterr()
    *table, last = out.splitlines() or [""]
    return code, "\n".join(table), json.loads(last) if last else None, err


@pytest.mark.parametrize("name", ["clip", "llava"])
def test_the_script_checks_a_folder_and_writes_what_it_prints(name, pictures, capsys, tmp_path):
    model, target = str(SCRIPTS.parent / "tests" / "testbed" / name), tmp_path / "report.json"
    told = ["--prompt", "what is red ?", "--keep-ratio", "0.5", "--layer", "1", "--method", "qk_topk"]
    told += ["--new-tokens", "2", "--attention", "eager", "--device", "cpu"]
    code, table, line, _ = command(
        capsys, "--model", model, "--image", *pictures, *told, "--json", str(target)
    )
    assert code == 0 and "ratio 1.0" in table and line["holds"] and line["model"] == model
    assert json.loads(target.read_text()) == line and line["config"]["layer"] == 1
    found = {check["name"]: check for check in line["checks"]}
    assert found["batch"]["detail"].endswith("0 to 1 of 2")
    assert found["generate"]["holds"] is (True if name == "llava" else None)


@pytest.mark.parametrize("name", ["qwen2_5_vl-tiny", "llava-tiny"])
def test_the_script_makes_random_weights_of_a_named_geometry(name, capsys, monkeypatch):
    monkeypatch.setattr(verify_inputs, "VISUAL_TOKENS", 16)
    told = ["--weights", "random", "--device", "cpu", "--new-tokens", "2", "--keep-ratio", "0.7", "0.4"]
    code, _, line, _ = command(capsys, "--model", name, *told, "--layer", "0,1")
    assert code == 0 and line["holds"] and line["config"]["keep_ratio"] == [0.7, 0.4]


@pytest.mark.parametrize("name", ["llava_next", "siglip2"])
def test_the_script_makes_random_weights_of_a_folder(name, capsys, tmp_path):
    """A language model's needs a processor; a tower's inputs are those of its model_type's processor."""
    folder = tmp_path / name
    if name == "llava_next":
        save_with_processor(folder, name)
    else:
        made(name, classes(name)[0])[0].config.save_pretrained(folder)
    told = ["--weights", "random", "--device", "cpu", "--new-tokens", "2"]
    code, table, line, err = command(capsys, "--model", str(folder), *told)
    assert code == 0 and line["holds"], (table, err)


def test_the_script_exits_with_1_where_a_check_fails(capsys):
    told = ["--weights", "random", "--device", "cpu", "--new-tokens", "1", "--tolerance", "1e-12"]
    code, table, line, _ = command(capsys, "--model", "llava-tiny", *told)
    assert code == 1 and "FAILS" in table and line["holds"] is False


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--weights", "random", "--image", "x.png"], "give --image with a picture, or --weights random"),
        ([], "give --image with a picture, or --weights random"),
        (["--image", "/nowhere/x.png"], "x.png cannot be read"),
        (["--weights", "random", "--keep-ratio", "2"], "keep_ratio must lie in (0, 1]"),
        (["--weights", "random", "--layer", "99"], "layer 99 is beyond"),
        (["--weights", "random", "--method", "mine"], "unknown method 'mine'"),
        (["--weights", "random", "--layer", "first"], "must be default, output, a number"),
        (["--weights", "random", "--device", "tpu"], "--device tpu is not on this machine"),
        (["--weights", "random", "--json", "/nowhere/x.json"], "the folder /nowhere does not exist"),
        (["--weights", "random", "--tolerance", "-1"], "tolerance must be larger than 0"),
    ],
)
def test_the_script_says_in_one_sentence_what_it_cannot_use(argv, sentence, capsys):
    code, table, line, err = command(capsys, "--model", "llava-tiny", *argv)
    assert code == 2 and sentence in err and len(err.splitlines()) == 1 and not table and line is None


def test_the_script_does_not_know_a_geometry(capsys):
    code, _, _, err = command(capsys, "--model", "nothing", "--weights", "random", "--device", "cpu")
    assert code == 2 and "no geometry is known for nothing" in err and len(err.splitlines()) == 1
