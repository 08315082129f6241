"""scripts/push_demo.py against a Hub on the loopback address, and what it says where it cannot push."""

from pathlib import Path

import pytest
from hub_client import Client
from hub_server import Hub

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "push_demo.py"


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server
        assert server.unknown == [] and server.drop == []


def started(endpoint, home, offline=False):
    client = Client(endpoint, home, offline)
    client.run(f"""
import contextlib, importlib.util, io, sys

spec = importlib.util.spec_from_file_location("push_demo", {str(SCRIPT)!r})
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

def push(argv):
    sys.argv = ["push_demo.py", *argv]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = script.cli.run(script.main)
    return [code, out.getvalue(), err.getvalue()]
""")
    return client


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    running = started(hub.endpoint, tmp_path_factory.mktemp("home"))
    yield running
    running.close()


def push(client, *argv, token="hf_user"):
    """Exit code, stdout and stderr of the script."""
    return client.run(f"result = push({list(argv)!r})", token)


def test_the_space_is_one_commit_with_all_it_needs(hub, client):
    code, out, err = push(client, "user/my-demo")
    assert code == 0, err
    assert out.startswith(f"pushed {hub.endpoint}/") and "/commit/" in out
    assert hub.made["user/my-demo"]["type"] == "space" and hub.made["user/my-demo"]["sdk"] == "gradio"
    files = hub.files("user/my-demo")
    for name, source in {
        "README.md": "scripts/demo/README.md",
        "app.py": "scripts/demo/app.py",
        "requirements.txt": "scripts/demo/requirements.txt",
        "hf_vtp/visualize/kept.py": "hf_vtp/visualize/kept.py",
        "tests/testbed/llava/config.json": "tests/testbed/llava/config.json",
        "LICENSE": "LICENSE",
    }.items():
        assert files[name] == (ROOT / source).read_bytes(), name
    for weights in (ROOT / "tests" / "testbed").glob("*/*.safetensors"):
        assert files[weights.relative_to(ROOT).as_posix()] == weights.read_bytes()
    samples = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hf_vtp/tools/demo/samples").iterdir()}
    assert len(samples) >= 3 and samples <= set(files)
    assert not any("__pycache__" in name for name in files)
    assert len(hub.repos["user/my-demo"].commits) == 2  # the Hub's own first one, and ours
    assert push(client, "user/my-demo")[0] == 0  # again: nothing is in its way


def test_a_name_alone_is_the_users_own(hub, client):
    assert push(client, "alone", "--private")[0] == 0
    assert hub.repos["user/alone"].private and "app.py" in hub.files("user/alone")


@pytest.mark.parametrize(
    ("argv", "token", "sentence"),
    [
        (["user/my demo"], "hf_user", "is no name on the Hub; give one such as"),
        (["user/never"], None, "a push to user/never needs a token; log in"),
        (["user/never"], "hf_wrong", "the Hub does not know this token"),
        (["other/never"], "hf_user", "this token may not write to other/never"),
        (["user/open", "--private"], "hf_user", "exists and is public"),
        ([], "hf_user", "give either the Space's name, user/name, or --to"),
        (["user/never", "--to", "folder"], "hf_user", "give either the Space's name, user/name, or --to"),
    ],
    ids=str,
)
def test_what_cannot_be_pushed_is_one_sentence_and_pushes_nothing(hub, client, argv, token, sentence):
    hub.put("user/open")
    code, out, err = push(client, *argv, token=token)
    assert code == 2 and out == ""
    assert sentence in err and err.count("\n") == 1, err
    assert "user/never" not in hub.repos and "app.py" not in hub.files("user/open")


def test_a_connection_that_breaks_leaves_nothing_half(hub, client):
    hub.drop.append(("POST /api/spaces/user/broken/commit", "before"))
    code, _, err = push(client, "user/broken")
    assert code == 2 and "connection to the Hub broke" in err and err.count("\n") == 1, err
    assert set(hub.files("user/broken")) == {".gitattributes"}
    assert push(client, "user/broken")[0] == 0 and "app.py" in hub.files("user/broken")


def test_without_a_network_it_says_so(tmp_path):
    client = started("http://127.0.0.1:9", tmp_path, offline=True)
    code, _, err = push(client, "user/offline")
    client.close()
    assert code == 2 and "HF_HUB_OFFLINE is set" in err and err.count("\n") == 1, err
