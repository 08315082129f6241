"""scripts/push_to_hub.py: the whole errand against a Hub on the loopback address."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hub_client import Client, environment
from hub_server import Hub
from huggingface_hub import ModelCard
from models import clip

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "push_to_hub.py"


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server
        assert server.unknown == [] and server.drop == []


def errand(hub, folder, *argv, token="hf_user"):
    told = environment(hub.endpoint, folder) | {"HF_TOKEN": token}
    command = [sys.executable, str(SCRIPT), *map(str, argv)]
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True)


def test_a_model_is_pruned_measured_and_pushed_with_its_card(hub, tmp_path):
    """One commit, which breaks at first; the second try takes what the first has measured."""
    folder = tmp_path / "secret place" / "my-clip"
    clip("CLIPModel").save_pretrained(folder)
    told = ["--model", folder, "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/my-clip-half"]
    options = ["--benchmark-options", "--rounds 1 --batch-size 1 --num-images 2"]
    hub.drop.append(("POST /api/models/user/my-clip-half/commit", "before"))
    done = errand(hub, tmp_path, *told, *options)
    written = Path("artifacts", "user--my-clip-half")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "connection to the Hub broke" in last and str(written) in last, (
        done.stderr
    )
    assert set(hub.files("user/my-clip-half")) == {".gitattributes"}
    done = errand(hub, tmp_path, *told, "--results", written / "bench_clip.json")
    assert done.returncode == 0, done.stderr
    assert f"{hub.endpoint}/user/my-clip-half/commit/" in done.stdout
    files = hub.files("user/my-clip-half")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "vtp_config.json",
        "bench_clip.json",
        "bench_clip.png",
    }
    assert len(hub.repos["user/my-clip-half"].commits) == 2
    assert not any(b"secret place" in content for content in files.values())
    config, result = json.loads(files["vtp_config.json"]), json.loads(files["bench_clip.json"])
    assert (config["keep_ratio"], config["num_layers"], config["model_type"]) == (0.5, 4, "clip")
    assert "base_model_name_or_path" not in config and result["model"] == "my-clip"
    card = ModelCard(files["README.md"].decode())
    speedup = round(result["rows"][1]["speedup"], 4)
    assert [e.metric_value for e in card.data.eval_results] == [speedup] and card.data.base_model is None
    assert "`my-clip` with random weights" in card.text and "(bench_clip.png)" in card.text
    client = Client(hub.endpoint, tmp_path)
    try:
        client.run("from models import clip; from hf_vtp import apply_vtp")
        client.run("model = apply_vtp(clip('CLIPModel'), 'user/my-clip-half')")
        assert client.run("result = model.config.vtp_config['keep_ratio']") == 0.5
    finally:
        client.close()


def test_a_push_that_may_not_be_leaves_its_folder_and_says_why(hub, tmp_path):
    result = SCRIPT.parent.parent / "model_cards" / "results" / "cpu-2core" / "bench_llava_small_fp32.json"
    told = [
        "--model",
        "llava-tiny",
        "--weights",
        "random",
        "--keep-ratio",
        "0.5",
        "--repo",
        "user/half",
    ]
    done = errand(hub, tmp_path, *told, "--results", result, token="hf_other")
    assert done.returncode == 2 and "may not write" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "user/half" not in hub.repos
    assert (tmp_path / "artifacts" / "user--half" / "README.md").is_file()
    done = errand(hub, tmp_path, *told, "--results", result, "--private", "--revision", "dev")
    assert done.returncode == 0, done.stderr
    assert hub.repos["user/half"].private
    assert set(hub.files("user/half")) == {".gitattributes"}
    assert "vtp_config.json" in hub.files("user/half", "dev")


def test_a_benchmark_that_fails_ends_the_errand(hub, tmp_path):
    told = ["--model", "llava-tiny", "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/never"]
    done = errand(hub, tmp_path, *told, "--benchmark-options", "--rounds 0")
    assert done.returncode == 2 and "bench_llava.py failed with exit code 2" in done.stderr
    assert "user/never" not in hub.repos
