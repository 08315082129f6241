"""What lies in a folder is read, never run: models with code of their own, scripts of data and metrics."""

import io
import json
import sys

import pytest
from evaluation import run_script, save_classes, save_clip, save_qwen

pytestmark = pytest.mark.models
CODE = "open({!r}, 'w').close()\n"
CLASSES = """
from transformers import {base}

class Own({base}):
    model_type = "own"
"""
AUTO = {  # by the file that names the code: what it says, and the base of the class
    "config.json": ({"auto_map": {"AutoConfig": "own.Own"}, "model_type": "own"}, "PreTrainedConfig"),
    "tokenizer_config.json": (
        {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}},
        "PreTrainedTokenizerFast",
    ),
    "preprocessor_config.json": ({"auto_map": {"AutoImageProcessor": "own.Own"}}, "CLIPImageProcessor"),
    "processor_config.json": ({"auto_map": {"AutoProcessor": "own.Own"}}, "ProcessorMixin"),
}
BUILDER = """
import datasets

class Own(datasets.GeneratorBasedBuilder):
    def _info(self):
        return datasets.DatasetInfo(features=datasets.Features(image=datasets.Image()))

    def _split_generators(self, manager):
        return []
"""
METRIC = """
import evaluate

class Own(evaluate.Metric):
    pass
"""


@pytest.fixture
def asked(tmp_path, capsys, monkeypatch):
    """Run a script with somebody at the keyboard who says yes to everything; what it said of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))

    def run(script, *argv):
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
        code, out, err = run_script(script, capsys)(*argv)
        assert not (tmp_path / "ran").exists(), "code of the folder was run"
        assert "[y/N]" not in out + err and "Traceback" not in err
        return code, out, err

    return run


def own_code(folder, file, ran):
    """Code in the folder, and a file there that names it."""
    path = folder / file
    told = json.loads(path.read_text()) if path.exists() else {}
    more, base = AUTO[file]
    path.write_text(json.dumps({**told, **more}))
    (folder / "own.py").write_text(CODE.format(str(ran)) + CLASSES.format(base=base))


@pytest.mark.parametrize("file", AUTO)
@pytest.mark.parametrize("save", [save_clip, save_qwen])
def test_a_models_own_code_is_not_run(save, file, asked, tmp_path):
    save(tmp_path / "model")
    own_code(tmp_path / "model", file, tmp_path / "ran")
    (tmp_path / "model" / "custom_generate").mkdir()
    (tmp_path / "model" / "custom_generate" / "generate.py").write_text(CODE.format(str(tmp_path / "ran")))
    save_classes(tmp_path / "photos", per_class=1)  # too few, so that it ends where it would begin
    for script, argv in (
        ("tune", ("--target", 0.5, "--images", "photos")),
        ("eval_vlm", ("--data", "photos", "--prompt", "{image} {question}")),
    ):
        code, out, err = asked(script, "--model", "model", *argv, "--device", "cpu")
        assert (code, out, err.count("\n")) == (2, "", 1), err


@pytest.mark.parametrize("source", [BUILDER, METRIC, ""])
def test_a_script_of_data_or_of_a_metric_is_not_run(source, asked, tmp_path):
    save_clip(tmp_path / "model")
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own.py").write_text(CODE.format(str(tmp_path / "ran")) + source)
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: own.py\n---\n")
    for images in ("own", "own/own.py", "./own"):
        code, out, err = asked(
            "tune", "--model", "model", "--target", 0.5, "--images", images, "--device", "cpu"
        )
        assert (code, out, err.count("\n")) == (2, "", 1), err
        code, out, err = asked("eval_clip", "--model", "model", "--data", images, "--device", "cpu")
        assert (code, out, err.count("\n")) == (2, "", 1), err
    code, out, err = asked("tune", "--model", "own", "--target", 0.5, "--device", "cpu")
    assert code == 2 and "cannot be loaded" in err


def test_older_datasets_are_told_not_to_run_scripts(tmp_path, monkeypatch):
    import datasets

    from hf_vtp.tools.bench.cli import UsageError
    from hf_vtp.tools.bench.image_dataset import load_split

    told = {}

    def load_dataset(path, streaming, trust_remote_code=None):  # of datasets 3.6
        told.update(path=path, trust_remote_code=trust_remote_code)
        raise ValueError("it has a script")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UsageError, match="it has a script"):
        load_split(str(tmp_path), tmp_path)
    assert told == {"path": str(tmp_path), "trust_remote_code": False}
