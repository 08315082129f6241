"""scripts/bench_methods.py and scripts/bench_suite.py, on tiny sizes."""

import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from load_script import SCRIPTS, run

from hf_vtp import VTPConfig, list_methods
from hf_vtp.tools.bench import methods, suite
from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.bench.memory import peak_bytes


def test_every_method_is_measured(capsys, tmp_path):
    argv = ["--num-tokens", "16", "--rounds", "1", "--json", str(tmp_path / "out.json")]
    assert run("bench_methods", *argv) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result == json.loads((tmp_path / "out.json").read_text())
    assert [row["method"] for row in result["rows"]] == list(list_methods())
    for row in result["rows"]:
        assert row["latency_p50_ms"] > 0 and row["scratch_mib_per_image"] > 0 and row["tower_ms"] > 0
        assert row["share_of_tower"] == pytest.approx(row["latency_p50_ms"] / row["tower_ms"])
    by_name = {row["method"]: row for row in result["rows"]}
    assert (by_name["tome"]["stages"], by_name["flowcut"]["stages"], by_name["vtp"]["stages"]) == (24, 12, 5)
    assert all(name in out for name in list_methods())


def test_a_method_beyond_its_limit_is_shown_without_numbers(monkeypatch, capsys):
    monkeypatch.setattr(methods, "limit", lambda config: 10)
    assert run("bench_methods", "--method", "scope", "--num-tokens", "16", "--rounds", "1") == 0
    out = capsys.readouterr().out
    (row,) = json.loads(out.splitlines()[-1])["rows"]
    assert row["latency_p50_ms"] is None and row["limit"] == 10 and "at most 10 tokens" in out


def test_scratch_is_what_a_call_allocates():
    """The plain recipe needs little; an N×N product of 1,024 tokens alone would be 4 MiB."""
    told = (1024, 0.25, 1, torch.float32, torch.device("cpu"), 1, 0)
    plain, nms = methods.measure(["qk_topk", "vtp"], *told)
    assert 0.9 < plain["scratch_mib_per_image"] < 2 < 4 < nms["scratch_mib_per_image"] < 40


@pytest.mark.parametrize(
    "script, argv, says",
    [
        ("bench_methods", ["--method", "vpt"], "unknown method 'vpt'; choose from vtp"),
        ("bench_methods", ["--num-tokens", "200"], "--num-tokens must be squares"),
        ("bench_methods", ["--keep-ratio", "1.0"], "between 0 and 1"),
        ("bench_methods", ["--json", "nowhere/out.json"], "the folder nowhere does not exist"),
        ("bench_suite", ["--out", "nowhere"], "--out must be an existing folder"),
        (
            "bench_suite",
            ["--piece", "x", "--device", "cpu"],
            "unknown piece 'x' for cpu; choose from clip",
        ),
    ],
)
def test_wrong_input_is_one_sentence(script, argv, says, capsys):
    assert run(script, *argv) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("device", suite.PIECES)
def test_the_arguments_of_every_piece_are_taken(device, tmp_path):
    for name, piece in suite.PIECES[device].items():
        module = import_module(f"hf_vtp.tools.commands.{piece.command.replace('-', '_')}")
        args = module.parser().parse_args(suite.arguments(name, piece, tmp_path))
        assert args.json == str(tmp_path / f"{name}.json")
        assert all(m in list_methods() for m in args.method)
        assert getattr(args, "weights", "random") == "random"


def test_a_piece_leaves_json_and_markdown_and_a_failed_one_is_said(tmp_path, capfd):
    piece = suite.Piece("bench-methods", "--method vtp --num-tokens 16 --rounds 1", plot=False)
    suite.run("one", piece, tmp_path)
    result = json.loads((tmp_path / "one.json").read_text())
    text = (tmp_path / "one.md").read_text()
    assert "| 16 | vtp |" in text and result["command"].split("--json")[0] in text
    with pytest.raises(UsageError, match="two failed with exit code 2"):
        suite.run("two", suite.Piece("bench-methods", "--method x", plot=False), tmp_path)
    assert "unknown method 'x'" in capfd.readouterr().err and not (tmp_path / "two.json").exists()


def test_listing_runs_nothing():
    told = [sys.executable, str(SCRIPTS / "bench_suite.py"), "--list", "--device", "cuda"]
    out = subprocess.run(told, capture_output=True, text=True, check=True).stdout
    assert all(name in out for name in suite.PIECES["cuda"])
    assert "python scripts/bench_clip.py --weights random" in out


@pytest.mark.parametrize("name", list_methods())
def test_no_method_without_a_limit_holds_a_matrix_of_all_pairs(name, monkeypatch):
    """1,024 tokens of 64 channels are 256 KiB, and so is a block here; all pairs would be 4 MiB a head.

    All pairs of a window of `ward` are there at once, so windows are as small here as blocks are.
    """
    config = VTPConfig(method=name, keep_ratio=0.25)
    if methods.limit(config):
        pytest.skip("takes few tokens only")
    monkeypatch.setattr(methods, "WIDTH", 64)
    monkeypatch.setattr(methods, "LANGUAGE_WIDTH", 64)
    monkeypatch.setattr(methods, "HEADS", 2)
    monkeypatch.setattr("hf_vtp.pruning.tokens.BLOCK_ELEMENTS", 1 << 16)
    for module in ("hf_vtp.pruning.ward", "hf_vtp.methods.selectors.ward"):
        monkeypatch.setattr(sys.modules[module], "WINDOW", 64)
    tokens = methods.random_tokens(config, 1024, 1, torch.float32, torch.device("cpu"), 0)
    with torch.inference_mode():
        peak = peak_bytes(lambda: methods.one_stage(tokens, config), torch.device("cpu"))
    assert peak < 3.75 * 2**20
