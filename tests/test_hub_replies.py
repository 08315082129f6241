"""What a Hub that is none, refuses or is out of order answers, each told in its own sentence."""

import re

import pytest
from hub_client import Client
from hub_server import Hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from test_hub import refused

from hf_vtp import hub as client_side

PAGE = b"<html><title>Log in to the hotel's network</title></html>"
LOAD = "VTPConfig.from_pretrained('other/{}', cache_dir='fresh')"
PUSH = "VTPConfig().push_to_hub('user/{}')"


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server
        assert server.unknown == []


@pytest.fixture(scope="module")
def client(hub, tmp_path_factory):
    running = Client(hub.endpoint, tmp_path_factory.mktemp("home"))
    running.run("from hf_vtp import VTPConfig")
    yield running
    running.close()


@pytest.fixture
def answers(hub):
    """What to answer instead, by a regex of "METHOD path"."""
    yield hub.answers
    hub.answers.clear()


SAID = {  # what is answered, and what that is called: of loading, of pushing
    "a login page": ((200, PAGE, {"Content-Type": "text/html"}), "is no Hub", "is no Hub"),
    "JSON of something else": ((200, b'["welcome"]', {}), "is no Hub", "is no Hub"),
    "403": ((403, b"{}", {}), "this token may not read other/", "this token may not write to user/"),
    "403 of a proxy": (
        (403, PAGE, {}),
        "this token may not read other/",
        "this token may not write to user/",
    ),
    "501": ((501, PAGE, {}), "has a fault of its own (status 501)", "has a fault of its own (status 501)"),
    "507": ((507, b"", {}), "has a fault of its own (status 507)", "has a fault of its own (status 507)"),
}


@pytest.mark.parametrize("name", SAID)
def test_replies_are_told_apart(name, hub, client, answers):
    answer, loading, pushing = SAID[name]
    hub.put("other/replies", vtp_config__json=b"{}")
    answers.append(("", answer))
    refused(client, LOAD.format("replies"), "OSError", loading)
    refused(client, LOAD.format("replies").replace(")", ", force_download=True)"), "OSError", loading)
    refused(client, PUSH.format("replies"), "OSError", pushing, token="hf_user")


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_faults_that_the_client_asks_about_again(status):
    """By the sentence alone: the client waits half a minute between its questions."""

    class Reply:
        status_code, headers, request = status, {}, None

    answered = HfHubHTTPError("no", response=Reply())
    hidden = LocalEntryNotFoundError("not in the cache")
    hidden.__cause__ = answered
    says = "asked too often" if status == 429 else rf"fault of its own \(status {status}\)"
    for error in (answered, hidden):
        with pytest.raises(OSError, match=says), client_side.clearly("a/b"):
            raise error


def test_a_download_ends_at_the_bound(hub, client, answers):
    """Of a server that says nothing of the size, or what is not so, and sends without end."""
    hub.put("other/endless", vtp_config__json=b'{"keep_ratio": 0.5}')
    for length in ({}, {"Content-Length": "20"}):
        hub.sent = 0
        head = (200, b"", {"ETag": '"e"', "X-Repo-Commit": "c" * 40, **length})
        answers[:] = [("HEAD", head), ("GET", (200, None, {}))]
        refused(client, LOAD.format("endless"), "ValueError", "larger than 65536 bytes")
        assert 65_536 < hub.sent < 8_000_000  # what the system's buffers hold was sent as well
    answers.clear()
    assert client.run(f"result = {LOAD.format('endless')}.keep_ratio") == 0.5


def test_a_file_of_the_cache_is_not_asked_for_again(hub, client):
    hub.put("other/cached", vtp_config__json=b'{"keep_ratio": 0.5}')
    client.run(LOAD.format("cached"))
    calls = len(hub.calls)
    client.run(LOAD.format("cached"))
    assert all(re.match("HEAD", call) for call in hub.calls[calls:])
