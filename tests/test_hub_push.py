"""push-to-hub: from a model to its card on a Hub on the loopback address."""

import json
from pathlib import Path

import pytest
from hub_client import Client
from hub_server import Hub
from huggingface_hub import ModelCard
from models import clip

RESULTS = Path(__file__).resolve().parent.parent / "model_cards" / "results" / "cpu-2core"


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server
        assert server.unknown == [] and server.drop == []


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    running = Client(hub.endpoint, tmp_path_factory.mktemp("home"))
    running.run("""
import contextlib, io, os, sys
from hf_vtp.tools.commands import run

def pushing(folder, argv, script="hf-vtp push-to-hub"):
    os.chdir(folder)
    sys.argv = [script, *argv]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run("push-to-hub")
    return [code, out.getvalue(), err.getvalue()]
""")
    yield running
    running.close()


def pushed(client, folder, *argv, token="hf_user"):
    """Exit code, stdout and stderr of the command, run in `folder`."""
    return client.run(f"result = pushing({str(folder)!r}, {[str(a) for a in argv]!r})", token)


def test_a_model_is_pruned_measured_and_pushed_with_its_card(hub, client, tmp_path):
    """One commit, which breaks at first; the second try takes what the first has measured."""
    folder = tmp_path / "secret place" / "my-clip"
    clip("CLIPModel").save_pretrained(folder)
    told = ["--model", folder, "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/my-clip-half"]
    told += ["--base-model", "user/my-clip"]
    options = ["--benchmark-options", "--rounds 1 --batch-size 1 --num-images 2"]
    hub.drop.append(("POST /api/models/user/my-clip-half/commit", "before"))
    code, out, err = pushed(client, tmp_path, *told, *options)
    written = Path("artifacts", "user--my-clip-half")
    last = err.splitlines()[-1]
    assert code == 2 and "connection to the Hub broke" in last and str(written) in last, err
    assert set(hub.files("user/my-clip-half")) == {".gitattributes"}
    code, out, err = pushed(client, tmp_path, *told, "--results", written / "bench_clip.json")
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
    assert config["base_model_name_or_path"] == "user/my-clip" and result["model"] == "my-clip"
    card = ModelCard(files["README.md"].decode())
    speedup = round(result["rows"][1]["speedup"], 4)
    assert [e.metric_value for e in card.data.eval_results] == [
        speedup
    ] and card.data.base_model == "user/my-clip"
    assert 'from_pretrained("user/my-clip")' in card.text
    assert "`my-clip` with random weights" in card.text and "(bench_clip.png)" in card.text
    client.run("from models import clip; from hf_vtp import apply_vtp")
    client.run("model = apply_vtp(clip('CLIPModel'), 'user/my-clip-half')")
    assert client.run("result = model.config.vtp_config['keep_ratio']") == 0.5


def test_a_push_that_may_not_be_leaves_its_folder_and_says_why(hub, client, tmp_path):
    result = RESULTS / "llava_small_fp32.json"
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
    code, out, err = pushed(client, tmp_path, *told, "--results", result, token="hf_other")
    assert code == 2 and "may not write" in err, err
    assert "Traceback" not in err and "user/half" not in hub.repos
    assert (tmp_path / "artifacts" / "user--half" / "README.md").is_file()
    code, out, err = pushed(client, tmp_path, *told, "--results", result, "--private", "--revision", "dev")
    assert code == 0, err
    assert hub.repos["user/half"].private
    assert set(hub.files("user/half")) == {".gitattributes"}
    assert "vtp_config.json" in hub.files("user/half", "dev")


def test_a_benchmark_that_fails_ends_the_push(hub, client, tmp_path):
    told = ["--model", "llava-tiny", "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/never"]
    code, out, err = pushed(client, tmp_path, *told, "--benchmark-options", "--rounds 0")
    assert code == 2 and "bench-vlm failed with exit code 2" in err
    assert "user/never" not in hub.repos


SLOW = """
import os, sys, time, pathlib
pathlib.Path(sys.argv[sys.argv.index("--json") + 1]).write_text("{")  # half of a result
open(os.environ["BEGAN"], "w").close()
time.sleep(600)
"""


def test_a_push_that_was_killed_while_measuring_runs_again(client, tmp_path, monkeypatch):
    """Killed with no time to tidy up; the same command then finds nothing in its way."""
    model = tmp_path / "my-clip"
    clip("CLIPModel").save_pretrained(model)
    told = [
        "--model",
        str(model),
        "--base-model",
        "user/my-clip",
        "--weights",
        "random",
        "--keep-ratio",
        "0.5",
    ]
    told += ["--repo", "user/killed", "--dry-run"]
    slow, began = tmp_path / "slow", tmp_path / "began"
    slow.mkdir()
    (slow / "bench_clip.py").write_text(SLOW)
    code = f"""
import os, pathlib, signal, threading, time
def kill():
    while not os.path.exists({str(began)!r}):
        time.sleep(0.01)
    os.kill(0, signal.SIGKILL)
child = os.fork()
if not child:
    os.setsid()
    os.environ["BEGAN"] = {str(began)!r}
    threading.Thread(target=kill, daemon=True).start()
    pushing({str(tmp_path)!r}, {told!r}, {str(slow / "push_to_hub.py")!r})  # beside it, the slow benchmark
    os._exit(0)
result = os.waitpid(child, 0)[1]
"""
    assert client.run(code) == 9
    written = tmp_path / "artifacts" / "user--killed"
    (written / "vtp_config.json").rename(written / ".vtp_config-half.json")  # as if killed a little earlier
    assert [path.name for path in written.iterdir()] == [".vtp_config-half.json"]
    options = ["--benchmark-options", "--rounds 1 --batch-size 1 --num-images 2"]
    code, out, err = pushed(client, tmp_path, *told, *options)
    assert code == 0 and "dry run" in out, err
    made = {path.name for path in written.iterdir()} - {".vtp_config-half.json"}
    assert made == {"README.md", "vtp_config.json", "bench_clip.json", "bench_clip.png"}
    assert json.loads((written / "bench_clip.json").read_text())["model"] == "my-clip"


@pytest.mark.parametrize("name", ["clip", "./clip", "user/clip"])
def test_a_card_of_a_folder_needs_the_models_name(client, tmp_path, name):
    """A folder's name may look like one on the Hub."""
    clip("CLIPModel").save_pretrained(tmp_path / name)
    result = RESULTS / "clip_vit_b16_fp32.json"
    told = ["--model", name, "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/half", "--dry-run"]
    code, out, err = pushed(client, tmp_path, *told, "--results", result)
    assert (code, out, err.count("\n")) == (
        2,
        "",
        1,
    ) and "give --base-model, the model's name on the Hub" in err
    assert not (tmp_path / "artifacts").exists()
    code, out, err = pushed(client, tmp_path, *told, "--results", result, "--base-model", "./clip")
    assert code == 2 and "--base-model must be a name on the Hub" in err
    code, out, err = pushed(client, tmp_path, *told, "--results", result, "--base-model", "openai/clip")
    assert code == 0, err
    card = (tmp_path / "artifacts" / "user--half" / "README.md").read_text()
    assert 'from_pretrained("openai/clip")' in card and 'from_pretrained("clip")' not in card


def test_what_is_copied_into_the_folder_replaces_no_pipe(client, tmp_path):
    import os
    import stat

    result = RESULTS / "llava_small_fp32.json"
    told = ["--model", "llava-tiny", "--weights", "random", "--keep-ratio", "0.5", "--repo", "user/half"]
    for name in ("README.md", "vtp_config.json", result.name):
        folder = tmp_path / name / "folder"
        folder.mkdir(parents=True)
        os.mkfifo(folder / name)
        (folder / "vtp_config.json").exists() or (folder / "vtp_config.json").write_text("{}")
        code, _, err = pushed(client, tmp_path, *told, "--results", result, "--folder", folder, "--dry-run")
        assert code == 2 and "a device, a pipe or a socket" in err, err
        assert stat.S_ISFIFO((folder / name).stat().st_mode)
