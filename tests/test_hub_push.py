"""scripts/push_to_hub.py: the whole errand against a Hub on the loopback address."""

import json
from pathlib import Path

import pytest
from hub_client import Client
from hub_server import Hub
from huggingface_hub import ModelCard
from models import clip

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "push_to_hub.py"


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server
        assert server.unknown == [] and server.drop == []


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    running = Client(hub.endpoint, tmp_path_factory.mktemp("home"))
    running.run(f"""
import contextlib, importlib.util, io, os, sys

spec = importlib.util.spec_from_file_location("push_to_hub", {str(SCRIPT)!r})
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

def errand(folder, argv):
    os.chdir(folder)
    sys.argv = ["push_to_hub.py", *argv]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = script.cli.run(script.main)
    return [code, out.getvalue(), err.getvalue()]
""")
    yield running
    running.close()


def errand(client, folder, *argv, token="hf_user"):
    """Exit code, stdout and stderr of the script, run in `folder`."""
    return client.run(f"result = errand({str(folder)!r}, {[str(a) for a in argv]!r})", token)


def test_a_model_is_pruned_measured_and_pushed_with_its_card(hub, client, tmp_path):
    """One commit, which breaks at first; the second try takes what the first has measured."""
    folder = tmp_path / "secret place" / "my-clip"
    clip("CLIPModel").save_pretrained(folder)
    told = ["--model", folder, "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/my-clip-half"]
    options = ["--benchmark-options", "--rounds 1 --batch-size 1 --num-images 2"]
    hub.drop.append(("POST /api/models/user/my-clip-half/commit", "before"))
    code, out, err = errand(client, tmp_path, *told, *options)
    written = Path("artifacts", "user--my-clip-half")
    last = err.splitlines()[-1]
    assert code == 2 and "connection to the Hub broke" in last and str(written) in last, err
    assert set(hub.files("user/my-clip-half")) == {".gitattributes"}
    code, out, err = errand(client, tmp_path, *told, "--results", written / "bench_clip.json")
    assert code == 0, err
    assert f"{hub.endpoint}/user/my-clip-half/commit/" in out
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
    client.run("from models import clip; from hf_vtp import apply_vtp")
    client.run("model = apply_vtp(clip('CLIPModel'), 'user/my-clip-half')")
    assert client.run("result = model.config.vtp_config['keep_ratio']") == 0.5


def test_a_push_that_may_not_be_leaves_its_folder_and_says_why(hub, client, tmp_path):
    result = SCRIPT.parent.parent / "model_cards" / "results" / "cpu-2core" / "llava_small_fp32.json"
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
    code, out, err = errand(client, tmp_path, *told, "--results", result, token="hf_other")
    assert code == 2 and "may not write" in err, err
    assert "Traceback" not in err and "user/half" not in hub.repos
    assert (tmp_path / "artifacts" / "user--half" / "README.md").is_file()
    code, out, err = errand(client, tmp_path, *told, "--results", result, "--private", "--revision", "dev")
    assert code == 0, err
    assert hub.repos["user/half"].private
    assert set(hub.files("user/half")) == {".gitattributes"}
    assert "vtp_config.json" in hub.files("user/half", "dev")


def test_a_benchmark_that_fails_ends_the_errand(hub, client, tmp_path):
    told = ["--model", "llava-tiny", "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/never"]
    code, out, err = errand(client, tmp_path, *told, "--benchmark-options", "--rounds 0")
    assert code == 2 and "bench_llava.py failed with exit code 2" in err
    assert "user/never" not in hub.repos
