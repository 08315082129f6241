"""scripts/bench_vlm.py on families beyond those with a geometry by name: any that can be pruned."""

import json

import pytest
import torch
from processed import save_with_processor
from torch import nn

from hf_vtp.tools.bench import bench_vlm
from hf_vtp.tools.bench.parts import inside

QUICK = ("--device", "cpu", "--threads", 1, "--rounds", 1, "--new-tokens", 3, "--text-tokens", 8)

pytestmark = pytest.mark.models


def test_a_family_whose_processor_makes_the_prompts(bench, tmp_path):
    """Of LLaVA-NeXT a picture is several images of the tower."""
    folder = save_with_processor(tmp_path / "model", "llava_next")
    argv = ("--model", folder, "--weights", "random", "--keep-ratio", 0.5, *QUICK)
    code, out, err = bench("bench_vlm", *argv, "--batch-size", 1, 2, "--resolution", 16, 256)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    rows = result["rows"]
    assert result["benchmark"] == "llava_next"
    assert [row["image_size"] for row in rows[::4]] == ["16x16", "64x64"]
    tokens = [(row["kept_tokens"], row["total_tokens"]) for row in rows]
    assert tokens[0] == tokens[2] and len(set(tokens)) == 2 * len({row["total_tokens"] for row in rows})
    for whole, pruned in zip(rows[::2], rows[1::2], strict=True):
        assert pruned["kept_tokens"] == whole["kept_tokens"] / 2
        assert pruned["prompt_tokens"] < whole["prompt_tokens"] and pruned["layers"] == [0, 1]
        assert whole["projector_gflop"] > pruned["projector_gflop"] > 0 < pruned["prefill_ms"]
        assert whole["tower_gflop"] > 0 < pruned["tower_ms"]


def test_a_family_without_a_row_is_pruned_after_its_features(bench, tmp_path):
    folder = save_with_processor(tmp_path / "model", "llava_onevision")
    argv = ("--model", folder, "--weights", "random", "--keep-ratio", 0.5)
    code, out, err = bench("bench_vlm", *argv, *QUICK, "--method", "uniform", "--resolution", 16)
    assert code == 0, err
    whole, pruned = json.loads(out.splitlines()[-1])["rows"]
    assert "features" in out and pruned["layers"] == []
    assert pruned["kept_tokens"] == round(whole["kept_tokens"] / 2)
    assert pruned["prompt_tokens"] == whole["prompt_tokens"] - whole["kept_tokens"] + pruned["kept_tokens"]
    assert pruned["tower_flop_ratio"] == 1 < pruned["ttft_flop_ratio"]


def test_what_a_model_does_not_have_apart_is_not_given():
    spent = {"tower": [], "language": [5.0, 2.0], "head": [1.0, 1.0]}
    assert bench_vlm.of_parts(spent, 9.0) == {"tower": None, "projector": None, "prefill": 6.0, "other": 3.0}
    assert bench_vlm.of_parts({"tower": [1.0, 2.0]}, 9.0)["prefill"] is None
    assert bench_vlm.ratio(None, 2.0) is None and bench_vlm.ratio(4.0, 2.0) == 2.0


def test_time_and_flops_within_modules():
    """Nested modules count once, each run by itself, the module's own hooks with it."""
    reading = iter(range(100))
    inner, outer = nn.Linear(2, 2), nn.Sequential(nn.ReLU())
    outer.append(inner)
    with inside({"outer": outer, "inner": inner}, lambda: next(reading)) as spent:
        outer(torch.ones(2))
        inner(torch.ones(2))
    assert spent == {"outer": [2], "inner": [1, 1]}
    assert not outer._forward_hooks and not inner._forward_pre_hooks
