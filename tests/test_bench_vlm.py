"""Benchmarks of vision-language models, as scripts: what they print, write and refuse, on tiny geometries."""

import json
import sys

import pytest
import torch
from PIL import Image
from processed import save_with_processor
from transformers import BertConfig, LlavaForConditionalGeneration, LlavaNextConfig

from hf_vtp.tools import loading
from hf_vtp.tools.bench import bench_vlm, inputs
from hf_vtp.tools.bench.geometry import named_config
from hf_vtp.tools.commands.bench_vlm import resolutions
from hf_vtp.tools.models import auto_class, random_model

ROW = {
    *("batch_size", "image_size", "method", "keep_ratio", "layer", "layers", "kept_tokens", "total_tokens"),
    *("prompt_tokens", "kv_cache_bytes", "decode_tokens_per_s", "peak_memory_mib", "generate_memory_mib"),
    *(f"{part}_{unit}" for part in bench_vlm.PARTS for unit in ("ms", "gflop")),
    *(f"{what}_{key}" for what in bench_vlm.WHOLES for key in ("gflop", "flop_ratio")),
    *("tower_speedup", "tower_flop_ratio"),
    *("gbyte_moved", "arithmetic_floor_ms", "memory_floor_ms", "times_floor"),
    *(
        f"{what}_{key}"
        for what in bench_vlm.WHOLES
        for key in ("p50_ms", "p95_ms", "iqr_ms", "min_ms", "speedup", "speedup_quartiles")
    ),
}
RESULT = {
    *("benchmark", "command", "model", "weights", "dtype", "attn_implementation", "text_tokens"),
    *("new_tokens", "rounds", "seed", "flops", "memory", "peaks", "environment", "rows"),
}
QUICK = ("--device", "cpu", "--threads", 1, "--rounds", 1, "--new-tokens", 3, "--text-tokens", 8)

pytestmark = pytest.mark.models


def check_numbers(rows, choosing=0.0):
    """What must hold between the rows of one batch and image size, the first of them unpatched.

    `choosing` are the MiB that a method may hold beyond what the unpruned model holds.
    """
    whole = rows[0]
    assert whole["kept_tokens"] == whole["total_tokens"]
    assert whole["ttft_speedup"] == whole["e2e_speedup"] == whole["tower_flop_ratio"] == 1
    for row in rows:
        assert set(row) == ROW
        dropped = row["total_tokens"] - row["kept_tokens"]
        assert row["prompt_tokens"] == whole["prompt_tokens"] - dropped
        per_token = whole["kv_cache_bytes"] / whole["prompt_tokens"]
        assert row["kv_cache_bytes"] == row["prompt_tokens"] * per_token
        parts = sum(row[f"{part}_gflop"] for part in bench_vlm.PARTS)
        assert row["ttft_gflop"] == pytest.approx(parts) and row["ttft_gflop"] < row["e2e_gflop"]
        assert all(row[f"{part}_ms"] > 0 for part in bench_vlm.PARTS)
        assert row["peak_memory_mib"] > row["generate_memory_mib"] > 0
        assert row["arithmetic_floor_ms"] > 0 < row["memory_floor_ms"] and row["gbyte_moved"] > 0
        if dropped:
            assert row["ttft_flop_ratio"] > 1 < row["e2e_flop_ratio"]
            assert row["projector_gflop"] < whole["projector_gflop"]
            # in so small a model the default moves more to choose than it saves
            assert row["gbyte_moved"] < whole["gbyte_moved"] or row["method"] == "vtp"
            # the peak may lie before tokens leave; indices of what stays come on top
            assert row["generate_memory_mib"] < 1.01 * whole["generate_memory_mib"] + choosing


def prefill_flops(tokens):
    """Of the tiny Llama: four projections, attention over all columns, a gated MLP; the head for one row.

    Older Transformers take the angles of positions from a small product as well.
    """
    width, layers, mlp, vocab = 32, 3, 64, 128
    block = 2 * tokens * (4 * width**2 + 3 * width * mlp) + 4 * tokens**2 * width
    return layers * block + 2 * width * vocab


def test_a_decoding_speed_within_the_noise_is_not_given():
    row = {"ttft_p50_ms": 100.0, "e2e_p50_ms": 150.0, "ttft_iqr_ms": 20.0, "e2e_iqr_ms": 49.0}
    assert bench_vlm.decoding_speed(row, 7) == pytest.approx(140)
    assert bench_vlm.decoding_speed({**row, "ttft_iqr_ms": 50.0}, 7) is None
    assert bench_vlm.decoding_speed({**row, "e2e_p50_ms": 90.0}, 7) is None


def test_llava(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "evaluate", None)
    argv = ("--weights", "random", "--model", "llava-tiny", "--method", "vtp", "qk_topk", *QUICK)
    argv += ("--keep-ratio", 0.5, "--batch-size", 1, 3, "--layer", "default", "output", "0,1")
    argv += ("--json", tmp_path / "r.json", "--plot", tmp_path / "r.png")
    code, out, err = bench("bench_llava", *argv)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result == json.loads((tmp_path / "r.json").read_text()) and set(result) == RESULT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.png"]
    with Image.open(tmp_path / "r.png") as image:
        image.load()
    for heading in ("tower", "prefill", "TTFT", "decode", "tok/s", "FLOP", "bound", "KV", "peak", "output=2"):
        assert heading in out
    rows = result["rows"]
    layers = [None, "output", [0, 1]]
    cases = [("unpatched", None, None), *((m, 0.5, where) for m in ("vtp", "qk_topk") for where in layers)]
    assert [(r["method"], r["keep_ratio"], r["layer"]) for r in rows] == cases * 2
    assert [row["layers"] for row in rows[:4]] == [None, [0, 1, 2], [2], [0, 1]]
    assert {row["kept_tokens"] for row in rows if row["layers"]} == {18}
    check_numbers(rows[:7])
    check_numbers(rows[7:])
    assert rows[7]["kv_cache_bytes"] == 3 * rows[0]["kv_cache_bytes"]
    assert rows[0]["prompt_tokens"] == 36 + 8
    # 3 layers, keys and values, 4 heads of 8, 4 bytes each
    assert rows[0]["kv_cache_bytes"] == 3 * 2 * 32 * 4 * (36 + 8)
    for row in rows:
        assert row["prefill_gflop"] * 1e9 == pytest.approx(prefill_flops(row["prompt_tokens"]), rel=1e-3)
    default, output = rows[1], rows[2]
    assert default["tower_gflop"] < output["tower_gflop"] and output["ttft_flop_ratio"] > 1


def test_qwen(bench):
    argv = ("--weights", "random", "--model", "qwen2_5_vl-tiny", "--keep-ratio", 0.25, *QUICK)
    code, out, err = bench("bench_qwen2_5_vl", *argv, "--resolution", 16, 60, "--dtype", "bfloat16")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    rows = result["rows"]
    assert set(result) == RESULT and (result["benchmark"], result["dtype"]) == ("qwen2_5_vl", "bfloat16")
    assert [(row["layer"], row["image_size"], row["total_tokens"], row["kept_tokens"]) for row in rows] == [
        (None, "32x32", 16, 16),
        (None, "32x32", 16, 4),
        ("output", "32x32", 16, 4),
        (None, "64x64", 64, 64),  # the nearest near-square grid to 60 is 8 x 8
        (None, "64x64", 64, 16),
        ("output", "64x64", 64, 16),
    ]
    for found in (rows[:3], rows[3:]):
        patches = 4 * found[0]["total_tokens"]
        check_numbers(found, choosing=4 * 64 * patches * 4 / 2**20)  # 64 rows, two heads, logits and weights
    assert rows[4]["layers"] == [0, 1, 2] and rows[5]["layers"] == [3]
    assert rows[3]["prompt_tokens"] == 64 + 8 + 2  # and the marks around the image
    assert rows[4]["tower_flop_ratio"] > 1.3 and rows[4]["ttft_flop_ratio"] > rows[5]["ttft_flop_ratio"]


@pytest.mark.parametrize(
    "family, name, billions",
    [
        ("llava", "llava-hf/llava-1.5-7b-hf", 7.06),
        ("llava", "llava-hf/llava-1.5-13b-hf", 13.35),
        ("qwen2_5_vl", "Qwen/Qwen2.5-VL-7B-Instruct", 8.29),
        ("qwen2_5_vl", "Qwen/Qwen2.5-VL-3B-Instruct", 3.75),
    ],
)
def test_geometries_have_the_parameters_of_what_they_are_named_after(family, name, billions):
    config = named_config(name)
    assert config.model_type == family
    model = random_model(name, config, auto_class(config), torch.float32, "meta")
    assert model.num_parameters() / 1e9 == pytest.approx(billions, abs=0.006)


@pytest.mark.parametrize("tokens, grid", [(256, (16, 16)), (1024, (32, 32)), (1000, (32, 31)), (2, (1, 2))])
def test_near_square(tokens, grid):
    assert inputs.near_square(tokens) == grid


def test_a_hub_that_cannot_be_reached(bench, monkeypatch):
    def no_network():
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(loading, "get_session", no_network)
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    for script in ("bench_llava", "bench_qwen2_5_vl", "bench_vlm"):
        code, out, err = bench(script, "--model", "hf-vtp-tests/no-such-model")
        assert code == 2 and out == "" and len(err.splitlines()) == 1
        assert "cannot be reached" in err and "--weights random" in err and "local folder" in err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of models, whole and of families that are not supported."""
    root = tmp_path_factory.mktemp("vlm")
    model = LlavaForConditionalGeneration(named_config("llava-tiny"))
    model.save_pretrained(root / "llava")
    BertConfig().save_pretrained(root / "bert")
    LlavaNextConfig().save_pretrained(root / "llava_next")
    (root / "empty").mkdir()
    half = save_with_processor(root / "half", "llava_onevision")
    (half / "processor_config.json").write_text("{}")
    return root


def test_a_folder(bench, folder):
    """Its config says what family it is of."""
    code, out, err = bench("bench_vlm", "--model", folder / "llava", "--keep-ratio", 0.1, *QUICK)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["benchmark"] == "llava" and [row["kept_tokens"] for row in result["rows"]] == [36, 4]


def test_a_size_is_for_images_of_any_size():
    assert resolutions("mine", True, [16]) == [16] and resolutions("mine", True, None) == [256, 1024, 4096]
    assert resolutions("mine", False, None) == [None]


TINY = ("--model", "llava-tiny", "--weights", "random")
REFUSED = {  # arguments, and what the one sentence says
    "unknown method": ((*TINY, "--method", "best"), "choose from ['cdpruner'"),
    "layer beyond what LLaVA reads": ((*TINY, "--layer", "3"), "choose from 0 to 2"),
    "layers falling": ((*TINY, "--layer", "1,0"), "ascending"),
    "no layer": ((*TINY, "--layer", "first"), "default, output"),
    "ratio 0": ((*TINY, "--keep-ratio", "0"), "(0, 1]"),
    "one new token": ((*TINY, "--new-tokens", "1"), "at least 2"),
    "unknown geometry": (("--model", "a/b", "--weights", "random"), "qwen2_5_vl-tiny"),
    "BERT": (("--model", "{0}/bert"), "of model_type 'bert'; choose a model of one of"),
    "no processor": (("--model", "{0}/llava_next", "--weights", "random"), "an image processor"),
    "half a processor": (("--model", "{0}/half", "--weights", "random"), "makes no prompt"),
    "no config": (("--model", "{0}/empty"), "config.json"),
    "no model folder": (("--model", "{0}/nowhere"), "there is no folder"),
    "no such output folder": ((*TINY, "--json", "{0}/nowhere/x.json"), "does not exist"),
    "no picture": ((*TINY, "--plot", "{0}/x.txt"), "must end in one of .png"),
    "no cuda": ((*TINY, "--device", "cuda:9"), "choose from cpu"),
    "no resolutions": ((*TINY, "--resolution", "256"), "leave out --resolution"),
    "no model": ((), "--model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence_and_exit_code_2(folder, bench, name):
    argv, sentence = REFUSED[name]
    code, out, err = bench("bench_vlm", *(arg.format(folder) for arg in argv))
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1 and sentence in err and "Traceback" not in err
