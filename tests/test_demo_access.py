"""Who reaches the demo, and what its page tells them."""

import os
from pathlib import Path

import pytest
from evaluation import save_llava
from PIL import Image

from hf_vtp.tools.bench.cli import UsageError
from hf_vtp.tools.demo import access
from hf_vtp.tools.demo import session as room
from hf_vtp.visualize import shipped

pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    monkeypatch.delenv(shipped.VARIABLE, raising=False)
    for name in ("SPACE_ID", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def app():
    pytest.importorskip("gradio", reason="gradio is not installed")
    from hf_vtp.tools.demo import page

    return page


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.8.9.1", "localhost", "LocalHost", "::1", "[::1]")],
        *[(host, False) for host in ("0.0.0.0", "::", "192.168.1.5", "my-machine", "localhost.example.org")],
    ],
)
def test_which_addresses_are_of_this_machine_alone(host, local):
    assert access.is_local(host) == local


def test_a_space_offers_its_models_alone(monkeypatch):
    assert access.offered("llava", "127.0.0.1") is None
    monkeypatch.setenv("SPACE_ID", "user/space")
    assert list(access.offered("llava", "127.0.0.1")) == ["llava", "clip", "qwen2_5_vl"]


def test_visitors_from_elsewhere_learn_of_no_folder(tmp_path, app):
    """The same words for a folder with a model, one without, one that is not there, and a name on the Hub."""
    own, other = tmp_path / "secret" / "own", tmp_path / "secret" / "other"
    save_llava(own)
    save_llava(other)
    (tmp_path / "empty").mkdir()
    picture, asked = Image.new("RGB", (30, 30)), ("what ?", ["vtp"], 0.5)
    served = room.Room(offered=access.offered(str(own), "0.0.0.0"))
    assert list(served.offered) == ["own", "clip", "llava", "qwen2_5_vl"]
    said = set()
    for name in (
        other,
        own,
        tmp_path / "empty",
        tmp_path / "no",
        "nobody/nothing",
        "/",
        "../own",
        "",
        None,
        7,
    ):
        name = str(name) if isinstance(name, Path) else name
        with pytest.raises(UsageError) as error:
            served.ask(picture, asked[0], name, *asked[1:])
        said.add(str(error.value))
    assert said == {"this page has no such model; choose from own, clip, llava, qwen2_5_vl"}
    assert not served.models
    served.find("own")
    served.models.clear()
    for file in own.iterdir():
        file.unlink()
    with pytest.raises(UsageError) as error:  # gone meanwhile
        served.find("own")
    assert str(error.value) == "own cannot be opened at the moment; choose another model"
    page = app.build(served, "own").get_config_file()
    field = next(c["props"] for c in page["components"] if c["props"].get("elem_id") == "model")
    assert [value for _, value in field["choices"]] == list(served.offered) and field["value"] == "own"
    assert not field["allow_custom_value"] and "folder" not in (field.get("info") or "")
    assert "secret" not in str(page)


def test_a_folder_called_as_a_shipped_model_does_not_hide_it(tmp_path):
    (tmp_path / "llava").mkdir()
    offered = access.offered(str(tmp_path / "llava"), "0.0.0.0")
    assert offered["llava of this page"] == str(tmp_path / "llava") and offered["llava"] == "llava"


def test_here_any_model_may_be_named(app, tmp_path):
    served = room.Room(offered=access.offered("llava", "127.0.0.1"))
    page = app.build(served, "llava").get_config_file()
    field = next(c["props"] for c in page["components"] if c["props"].get("elem_id") == "model")
    assert field["allow_custom_value"] and "folder" in field["info"]
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path}/no"):
        served.find(f"{tmp_path}/no")


def test_the_page_opens_behind_a_proxy(app, monkeypatch):
    """A proxy that nobody answers at; the page asks itself, and what was exempt stays so."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "internal.example.org")
    monkeypatch.setenv("no_proxy", "other.example.org")
    page, address = app.serve("clip", wait=False)
    try:
        assert address.startswith("http://127.0.0.1:")
        exempt = set(os.environ["no_proxy"].split(","))
        assert {"internal.example.org", "other.example.org", "127.0.0.1", "localhost", "::1"} <= exempt
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"]
    finally:
        page.close()
