"""scripts/bench_clip.py: what it prints, writes and refuses, on a tiny CLIP."""

import json
import subprocess
import sys
from pathlib import Path

import load_script
import numpy as np
import pytest
import torch
from families import classes, made
from models import clip_config
from PIL import Image
from transformers import BertConfig, CLIPImageProcessor, CLIPModel, LlavaConfig
from transformers.utils import logging

from hf_vtp.families.table import find_tower
from hf_vtp.tools import loading

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "bench_clip.py"
ROW = {
    *("batch_size", "method", "keep_ratio", "layers", "kept_tokens", "total_tokens", "gflop_per_image"),
    *("flop_ratio", "latency_p50_ms", "latency_p95_ms", "latency_iqr_ms", "latency_min_ms", "images_per_s"),
    *("speedup", "speedup_quartiles", "efficiency", "peak_memory_mib", "forward_memory_mib"),
    *("cosine_mean", "cosine_min", "cosine_p5"),
    *("gbyte_moved", "arithmetic_floor_ms", "memory_floor_ms", "times_floor"),
}
RESULT = {
    *("benchmark", "command", "model", "model_type", "weights", "dtype", "attn_implementation", "compile"),
    *("images", "num_images", "num_skipped", "rounds", "seed", "memory", "peaks", "environment", "rows"),
}

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP, photographs with a broken one among them, and folders of what is not supported."""
    root = tmp_path_factory.mktemp("bench")
    torch.manual_seed(0)
    CLIPModel(clip_config(layers=3)).save_pretrained(root / "clip")
    BertConfig().save_pretrained(root / "bert")
    LlavaConfig().save_pretrained(root / "llava")
    CLIPModel(clip_config(layers=2)).save_pretrained(root / "torn")
    weights = root / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    CLIPModel(clip_config(layers=2)).save_pretrained(root / "other_size")
    CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40}).save_pretrained(
        root / "other_size"
    )
    (root / "photos").mkdir()
    random = np.random.default_rng(0)
    for i in range(5):
        pixels = random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{i}.jpg")
    broken = root / "photos" / "broken.jpg"
    broken.write_bytes((root / "photos" / "0.jpg").read_bytes()[:500])
    (root / "empty").mkdir()
    (root / "all_broken").mkdir()
    (root / "all_broken" / "x.png").write_bytes(b"")
    return root


@pytest.fixture
def bench(capsys):
    """Runs the script in this process: exit code, stdout and stderr."""

    def run(*argv):
        capsys.readouterr()
        code = load_script.run("bench_clip", *argv)
        done = capsys.readouterr()
        return code, done.out, done.err

    yield run
    logging.set_verbosity_warning()
    logging.enable_progress_bar()


def test_from_a_shell_without_datasets(folder):
    """One process, as a user starts it, on a machine that lacks what only datasets need."""
    argv = [
        "--model",
        "clip",
        "--images",
        "photos",
        "--keep-ratio",
        "1.0",
        "0.5",
        "--method",
        "vtp",
        "qk_topk",
    ]
    argv += ["--layer", "0", "--batch-size", "2", "7", "--rounds", "2", "--json", "r.json", "--plot", "r.png"]
    code = (
        "import sys, runpy; sys.modules.update(datasets=None, evaluate=None); "
        f"sys.argv = {[str(SCRIPT), *argv]!r}; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "broken.jpg" in done.stderr and "Traceback" not in done.stderr
    assert "1 broken image was skipped" in done.stdout
    last = done.stdout.splitlines()[-1]
    result = json.loads(last)
    assert result == json.loads((folder / "r.json").read_text())
    with Image.open(folder / "r.png") as image:
        image.load()
        assert image.format == "PNG"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]

    assert set(result) == RESULT and all(set(row) == ROW for row in result["rows"])
    assert result["command"] == f"python scripts/bench_clip.py {' '.join(argv)}"
    assert (result["num_images"], result["num_skipped"], result["rounds"], result["seed"]) == (5, 1, 2, 0)
    assert result["environment"]["torch"] == torch.__version__
    rows = {(row["batch_size"], row["method"], row["keep_ratio"]): row for row in result["rows"]}
    assert list(rows) == [
        (size, *case)
        for size in (2, 7)
        for case in (("unpatched", None), *((m, r) for m in ("vtp", "qk_topk") for r in (1.0, 0.5)))
    ]
    whole, same, half = rows[2, "unpatched", None], rows[2, "vtp", 1.0], rows[2, "vtp", 0.5]
    assert (whole["kept_tokens"], same["kept_tokens"], half["kept_tokens"]) == (36, 36, 18)
    assert whole["gflop_per_image"] == same["gflop_per_image"] > half["gflop_per_image"]
    assert whole["speedup"] == whole["efficiency"] == whole["flop_ratio"] == 1
    assert half["efficiency"] == pytest.approx(half["speedup"] / half["flop_ratio"])
    assert half["images_per_s"] == pytest.approx(2000 / half["latency_p50_ms"])
    assert (
        same["cosine_min"] == pytest.approx(1, abs=1e-9) and 0 < half["cosine_min"] < half["cosine_mean"] < 1
    )
    assert half["cosine_p5"] is None and half["layers"] == [0]
    assert rows[7, "unpatched", None]["peak_memory_mib"] > whole["peak_memory_mib"] > 0


def test_random_weights_have_no_cosine(folder, bench):
    code, out, err = bench(
        *("--model", folder / "clip", "--weights", "random", "--images", folder / "photos", "--layer", 0, 1),
        *("--keep-ratio", 0.5, "--rounds", 1, "--dtype", "bfloat16", "--batch-size", 1, "--num-images", 2),
    )
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert [row["cosine_mean"] for row in result["rows"]] == [None, None]
    assert "n/a" in out and result["num_images"] == 2 and result["dtype"] == "bfloat16"
    assert result["rows"][1]["layers"] == [0, 1]


@pytest.mark.parametrize("model_type", ["siglip", "siglip2", "dinov2"])
def test_any_tower_is_measured(model_type, folder, bench, tmp_path):
    """With its own embedding, and its own inputs where patches and masks take the place of pixels."""
    model, _ = made(model_type, classes(model_type)[0])
    model.save_pretrained(tmp_path)
    argv = ("--model", tmp_path, "--images", folder / "photos", "--keep-ratio", 0.5, "--rounds", 1)
    code, out, err = bench(*argv, "--batch-size", 2, "--method", "vtp", "dynamic", "--layer", 0)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    whole, *pruned = result["rows"]
    assert result["model_type"] == find_tower(model).config.model_type
    assert pruned[1]["flop_ratio"] > 1  # in so small a model the default costs more than it saves
    for row in pruned:
        assert 0 < row["cosine_min"] < 1 and row["kept_tokens"] < whole["kept_tokens"]


def test_a_hub_that_cannot_be_reached(bench, monkeypatch):
    def no_network():
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(loading, "get_session", no_network)
    monkeypatch.setattr(loading.constants, "HF_HUB_OFFLINE", False)
    code, out, err = bench("--model", "hf-vtp-tests/no-such-model")
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert "cannot be reached" in err and "--weights random" in err and "local folder" in err


CLIP = ("--model", "{0}/clip")
REFUSED = {  # arguments, and what the one sentence says
    "no image": ((*CLIP, "--images", "{0}/empty"), "there is no image in the folder"),
    "no folder": ((*CLIP, "--images", "{0}/nowhere"), "there is no folder"),
    "only broken images": ((*CLIP, "--images", "{0}/all_broken"), "no image is left"),
    "no image but files": ((*CLIP, "--images", "{0}/clip/config.json"), "is no image"),
    "ratio 0": ((*CLIP, "--keep-ratio", "0"), "(0, 1]"),
    "ratio 1.5": ((*CLIP, "--keep-ratio", "0.5", "1.5"), "(0, 1]"),
    "ratio nan": ((*CLIP, "--keep-ratio", "nan"), "(0, 1]"),
    "no ratio": ((*CLIP, "--keep-ratio", "half"), "invalid float value"),
    "unknown method": ((*CLIP, "--method", "best"), "choose from ['cdpruner'"),
    "layer beyond": ((*CLIP, "--layer", "3"), "choose from 0 to 2"),
    "layers falling": ((*CLIP, "--layer", "1", "0"), "ascending"),
    "BERT": (("--model", "{0}/bert"), "of model_type 'bert', which has no vision tower"),
    "LLaVA": (("--model", "{0}/llava", "--weights", "random"), "measure it with bench-vlm"),
    "no config": (("--model", "{0}/empty"), "config.json"),
    "no model folder": (("--model", "{0}/nowhere"), "there is no folder"),
    "torn weights": (("--model", "{0}/torn"), "cannot be loaded"),
    "other size": (("--model", "{0}/other_size"), "image processor"),
    "unknown geometry": (("--model", "a/b", "--weights", "random"), "openai/clip-vit-base-patch16"),
    "batch size 0": ((*CLIP, "--batch-size", "0"), "at least 1"),
    "no cuda": ((*CLIP, "--device", "cuda:9"), "choose from cpu"),
    "flash attention": (
        (*CLIP, "--device", "cpu", "--attn-implementation", "flash_attention_2"),
        "eager, sdpa",
    ),
    "unknown flag": ((*CLIP, "--ratio", "1"), "unrecognized arguments"),
    "no such output folder": ((*CLIP, "--json", "{0}/nowhere/x.json"), "does not exist"),
    "output is a folder": ((*CLIP, "--json", "{0}/empty"), "is a folder"),
    "no picture": ((*CLIP, "--plot", "{0}/x.txt"), "must end in one of .png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_input_is_one_sentence_and_exit_code_2(folder, bench, name):
    argv, sentence = REFUSED[name]
    code, out, err = bench(*(arg.format(folder) for arg in argv))
    lines = [line for line in err.splitlines() if not line.startswith("skipped ")]
    assert code == 2 and out == ""
    assert len(lines) == 1 and sentence in lines[0] and "Traceback" not in err
