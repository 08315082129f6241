"""Trained scorers: files are read once, checked whole and never executed; a probe is trained in seconds."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from models import clip_vision, pixels
from references.probes import probe, tensors
from safetensors.torch import save, save_file

import hf_vtp.methods.scorers.linear_probe as scorer
from hf_vtp import VTPConfig, apply_vtp, vtp_stats
from hf_vtp.probe_files import MAX_BYTES, read

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 32  # of clip_vision
pytestmark = pytest.mark.models


def fields(weights):
    return {"scorer": "linear_probe", "scorer_options": {"weights": str(weights)}, "selector": "top_k"}


def sentence(error):
    text = str(error.value)
    assert len(text) < 400 and "\n" not in text, text
    return text


@pytest.mark.parametrize("hidden", [None, 5])
def test_the_highest_scores_of_the_file_stay(hidden):
    weights = probe(WIDTH, hidden)
    model = apply_vtp(clip_vision(), **fields(weights), layer=1, keep_ratio=0.4)
    with torch.no_grad():
        model(pixels(2))
    stats = vtp_stats(model)
    for scores, kept in zip(stats.stages[0].scores, stats.keep_indices, strict=True):
        assert len(scores.unique()) > 30  # tokens are told apart
        assert set(scores.topk(len(kept)).indices.tolist()) == set(kept.tolist())


def test_a_folder_and_a_file_are_the_same(tmp_path):
    save_file(tensors(WIDTH), tmp_path / "probe.safetensors")
    found = [scorer.load(weights=str(name)) for name in (tmp_path, tmp_path / "probe.safetensors")]
    assert torch.equal(found[0].linear[0], found[1].linear[0])


def test_a_file_is_read_when_the_model_is_pruned_and_not_in_a_forward(tmp_path):
    path = tmp_path / "own.safetensors"
    save_file(tensors(WIDTH), path)
    model = apply_vtp(clip_vision(), **fields(path), layer=1, keep_ratio=0.4)
    path.unlink()
    with torch.no_grad():
        first = model(pixels(2)).last_hidden_state
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(pixels(2)).last_hidden_state, first)
        save_file(tensors(WIDTH, seed=1), path)
        assert torch.equal(model(pixels(2)).last_hidden_state, first)
        apply_vtp(model, **fields(path), layer=1, keep_ratio=0.4)  # reads it anew
        assert not torch.equal(model(pixels(2)).last_hidden_state, first)


def test_a_compiled_model_takes_the_weights_as_constants():
    torch.compiler.reset()
    model = apply_vtp(clip_vision(layers=2), **fields(probe(WIDTH, 5)), layer=0, keep_ratio=0.4)
    with torch.no_grad():
        plain = model(pixels(2)).last_hidden_state
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(pixels(2)).last_hidden_state, plain, atol=1e-5, rtol=1e-5)
    torch.compiler.reset()


def test_a_config_names_the_file_and_holds_no_weights(tmp_path):
    config = VTPConfig(**fields("user/no-such-probe"))  # is not looked for before a model is pruned
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "vtp_config.json").read_text())
    assert saved["scorer_options"] == {"weights": "user/no-such-probe"}
    assert VTPConfig.from_pretrained(tmp_path) == config


def test_nothing_is_read_without_a_name_and_a_model_of_another_width_is_refused():
    with pytest.raises(ValueError) as error:
        apply_vtp(clip_vision(), scorer="linear_probe")
    assert "weights" in sentence(error)
    model = apply_vtp(clip_vision(), **fields(probe(16)), layer=1, keep_ratio=0.4)
    with pytest.raises(ValueError) as error, torch.no_grad():
        model(pixels(2))
    assert "16 channels, not of 32" in sentence(error)


@pytest.mark.parametrize("name", ["./nothing", "/no/such/file", "nothing.safetensors", "a b", "x/y/z"])
def test_what_is_no_file_and_no_repository_is_said(name):
    with pytest.raises(ValueError) as error:
        apply_vtp(clip_vision(), **fields(name))
    assert "no file, no folder and no name on the Hub" in sentence(error)


def test_a_folder_without_a_probe_and_a_repository_out_of_reach_are_said(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        apply_vtp(clip_vision(), **fields(tmp_path))
    assert "has no probe.safetensors" in sentence(error)
    with pytest.raises(OSError) as error:  # the tests are offline
        apply_vtp(clip_vision(), **fields("user/no-such-probe"))
    assert "user/no-such-probe" in sentence(error)


def without(name, **more):
    made = {**tensors(WIDTH), **more}
    return save({key: x for key, x in made.items() if key != name})


BROKEN = {
    "empty": (b"", "is no safetensors file"),
    "text": (b"not tensors at all, but long enough", "is no safetensors file"),
    "a pickle": (pickle.dumps({"a": 1}) * 9, "is no safetensors file"),
    "a long header": ((1 << 40).to_bytes(8, "little") + b"{}", "with a header of at most"),
    "cut": (save(tensors(WIDTH))[:-4], "is no safetensors file"),
    "a tensor less": (without("norm.bias"), "lacks norm.bias"),
    "half a hidden layer": (without("", **{"hidden.bias": torch.zeros(4)}), "lacks hidden.weight"),
    "a tensor more": (without("", extra=torch.zeros(1)), "has 'extra' too"),
    "another width": (without("", **{"norm.bias": torch.zeros(3)}), "norm.bias of the probe"),
    "no width": (without("", **{"norm.weight": torch.zeros(0)}), "must hold floats in the shape"),
    "whole numbers": (without("", **{"linear.bias": torch.zeros(1, dtype=torch.int64)}), "not int64 [1]"),
    "no number": (without("", **{"linear.bias": torch.tensor([float("nan")])}), "not finite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_file_is_refused_in_one_sentence(name, tmp_path):
    data, says = BROKEN[name]
    (tmp_path / "own.safetensors").write_bytes(data)
    with pytest.raises(ValueError) as error:
        apply_vtp(clip_vision(), **fields(tmp_path / "own.safetensors"))
    assert says in sentence(error)


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "large.safetensors"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(ValueError, match="is larger than"):
        read(path, "it")


def test_a_probe_is_trained_and_prunes_the_model_it_was_trained_on(tmp_path):
    script = [sys.executable, str(ROOT / "scripts" / "testbed" / "train_probe.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = tmp_path / "probe.safetensors"
    options = ["--out", str(out), "--steps", "3", "--batch", "2", "--hidden", "4"]
    ran = subprocess.run([*script, *options], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1])["steps"] == 3
    from hf_vtp.tools.testbed.load import load

    model = apply_vtp(
        load(ROOT / "tests" / "testbed" / "clip").model, **fields(out), layer=1, keep_ratio=0.25
    )
    with torch.no_grad():
        model.get_image_features(pixel_values=torch.zeros(1, 3, 96, 96))
    assert vtp_stats(model).num_kept == [36]
    wrong = subprocess.run([*script, "--out", str(tmp_path)], env=environment, capture_output=True, text=True)
    assert wrong.returncode == 2 and "is a folder" in wrong.stderr.splitlines()[-1]
    assert "Traceback" not in wrong.stderr
