"""A config as a file: what is written, what comes back, and what a broken or hostile file is told."""

import json
import math
import os
import warnings

import pytest

import hf_vtp
from hf_vtp import VTPConfig
from hf_vtp.bounded_json import MAX_BYTES, MAX_DEPTH

CHANGED = VTPConfig(
    keep_ratio=[0.7, 0.4],
    layer=[0, 2],
    method="random",
    merger="absorb",
    scorer_options={"seed": 3},
    positions="compact",
    max_keep=40,
    base_model_name_or_path="openai/clip-vit-base-patch16",
    model_type="clip",
    num_layers=12,
)


def one_sentence(error, *says):
    text = str(error.value)
    assert "\n" not in text and len(text) < 700 and all(part in text for part in says), text


def write(folder, content):
    (folder / "vtp_config.json").write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    "config", [VTPConfig(), CHANGED, VTPConfig(method="uniform", keep_ratio=1)], ids=repr
)
def test_what_is_saved_comes_back(config, tmp_path):
    path = config.save_pretrained(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "vtp_config.json"
    assert os.listdir(path.parent) == [path.name]
    assert VTPConfig.from_pretrained(path.parent) == config == VTPConfig.from_pretrained(str(path.parent))


def test_only_what_differs_from_the_defaults_is_written(tmp_path):
    path = VTPConfig(keep_ratio=0.5).save_pretrained(tmp_path)
    wanted = {"keep_ratio": 0.5, "method": "vtp", "vtp_version": hf_vtp.__version__}
    assert json.loads(path.read_text()) == wanted
    path = CHANGED.replace(vtp_version="0.0.1").save_pretrained(tmp_path)
    written = json.loads(path.read_text())
    assert written["vtp_version"] == hf_vtp.__version__  # which wrote it
    assert set(written) == {f for f in vars(CHANGED) if getattr(CHANGED, f) != getattr(VTPConfig(), f)} | {
        "vtp_version"
    }


def test_a_dict_shares_nothing_with_its_config():
    values = CHANGED.to_dict()
    values["scorer_options"]["seed"] = 4
    values["keep_ratio"].append(0.1)
    assert CHANGED.scorer_options == {"seed": 3} and CHANGED.keep_ratio == [0.7, 0.4]
    assert VTPConfig(**VTPConfig(**CHANGED.to_dict()).to_dict()) == CHANGED


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = VTPConfig(keep_ratio=0.5).save_pretrained(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        VTPConfig(keep_ratio=0.3).save_pretrained(tmp_path)
    assert os.listdir(tmp_path) == [path.name] and json.loads(path.read_text())["keep_ratio"] == 0.5


def test_unknown_fields_of_a_newer_version_are_named(tmp_path):
    write(tmp_path, '{"method": "vtp", "keep_ratio": 0.5, "warp": 9, "tilt": {"a": 1}, "vtp_version": "9.1"}')
    with pytest.warns(UserWarning) as caught:
        config = VTPConfig.from_pretrained(tmp_path)
    assert config == VTPConfig(keep_ratio=0.5, vtp_version="9.1")
    (warning,) = caught
    assert all(part in str(warning.message) for part in ("'warp', 'tilt'", "'9.1'", str(tmp_path)))
    assert warning.filename == __file__


def test_a_config_without_unknown_fields_warns_of_nothing(tmp_path):
    CHANGED.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VTPConfig.from_pretrained(tmp_path)


HOSTILE = {
    "empty": ("", "not valid JSON"),
    "truncated": ('{"method": "vtp", "keep_ra', "not valid JSON"),
    "two values": ('{"method": "vtp"} {}', "not valid JSON"),
    "pickle": (b"\x80\x04\x95\x17\x00\x00\x00", "UTF-8"),
    "byte order mark": ("\ufeff{}", "not valid JSON"),
    "list": ('[{"method": "vtp"}]', "not a list"),
    "null": ("null", "not null"),
    "text": ('"vtp"', "not a text"),
    "number": ("7", "not a int"),
    "too large": (" " * MAX_BYTES + "{}", f"larger than {MAX_BYTES} bytes"),
    "deep lists": ("[" * 30_000, f"deeper than {MAX_DEPTH}"),
    "deep objects": ('{"a":' * 10_000 + "1" + "}" * 10_000, f"deeper than {MAX_DEPTH}"),
    "deep option": ('{"scorer_options": ' + '{"a":' * 9 + "1" + "}" * 10, f"deeper than {MAX_DEPTH}"),
    "quotes without end": ('{"a": "' + '\\"' * 30_000, "not valid JSON"),
    "NaN": ('{"keep_ratio": NaN}', "NaN is no number"),
    "Infinity": ('{"keep_ratio": -Infinity}', "-Infinity is no number"),
    "float beyond range": ('{"keep_ratio": 1e999}', "1e999 is too large"),
    "int of 5,000 digits": ('{"min_keep": ' + "9" * 5000 + "}", "number of 5000 digits"),
    "int beyond 64 bits": ('{"min_keep": 99999999999999999999}', "number of 20 digits"),
    "long text": (json.dumps({"method": "v" * 60_000}), "text of 60000 characters"),
    "long key": (json.dumps({"scorer_options": {"v" * 60_000: 1}}), "text of 60000 characters"),
    "long list": (json.dumps({"keep_ratio": ["a"] * 5000}), "keep_ratio must be a number"),
    "a field twice": ('{"method": "vtp", "method": "random"}', "'method' stands in it twice"),
    "unknown method": ('{"method": "vpt"}', "unknown method 'vpt'; choose from"),
    "path as method": ('{"method": "../../etc/passwd"}', "unknown method '../../etc/passwd'"),
    "path as scorer": ('{"scorer": "/etc/passwd"}', "unknown scorer '/etc/passwd'"),
    "module as merger": ('{"merger": "os.system"}', "unknown merger 'os.system'"),
    "dunder as selector": ('{"selector": "__class__"}', "unknown selector"),
    "unknown option": ('{"scorer_options": {"__globals__": 1}}', "unknown option '__globals__'"),
    "lines in a name": ('{"method": "a\\nb"}', "unknown method 'a\\nb'"),
    "lone surrogate": ('{"method": "\\ud800"}', "unknown method"),
    "list as method": ('{"method": ["vtp"]}', "method must be a name"),
    "text as ratio": ('{"keep_ratio": "0.5"}', "keep_ratio must be a number"),
    "true as ratio": ('{"keep_ratio": true}', "keep_ratio must be a number"),
    "ratio of 1e9": ('{"keep_ratio": 1e9}', "(0, 1]"),
    "list as options": ('{"scorer_options": []}', "scorer_options must be a dict"),
    "null as version": ('{"vtp_version": null}', "vtp_version must be a version"),
    "number as base": ('{"base_model_name_or_path": 7}', "base_model_name_or_path must be a name"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_or_hostile_file_is_one_clear_error(name, tmp_path):
    content, says = HOSTILE[name]
    write(tmp_path, content)
    with pytest.raises(ValueError) as error:
        VTPConfig.from_pretrained(tmp_path)
    one_sentence(error, says, str(tmp_path / "vtp_config.json"))


def test_hostile_unknown_fields_make_a_short_warning(tmp_path):
    fields = {f"field {i} \n {'x' * 150}": 1 for i in range(300)}
    write(tmp_path, json.dumps({**fields, "vtp_version": "1"}))
    with pytest.warns(UserWarning) as caught:
        VTPConfig.from_pretrained(tmp_path)
    assert len(str(caught[0].message)) < 1000 and "\n" not in str(caught[0].message)


@pytest.mark.parametrize("values", [None, 3, "vtp", ["vtp"], ("method", "vtp")], ids=repr)
def test_a_dict_is_asked_for(values):
    with pytest.raises(ValueError) as error:
        VTPConfig.from_dict(values, "what I have")
    one_sentence(error, "what I have must hold an object")


def test_an_option_that_json_cannot_hold_is_not_saved(tmp_path):
    config = VTPConfig()
    config.scorer_options["of"] = math.nan  # behind the validation's back
    with pytest.raises(ValueError) as error:
        config.save_pretrained(tmp_path)
    one_sentence(error, "JSON")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("empty", FileNotFoundError, "has no vtp_config.json"),
        ("./missing", ValueError, "neither a folder nor a name on the Hub"),
        ("/missing/folder", ValueError, "neither a folder nor a name on the Hub"),
        ("../user/repo", ValueError, "neither a folder nor a name on the Hub"),
        ("~/config", ValueError, "neither a folder nor a name on the Hub"),
        ("user/repo/config", ValueError, "neither a folder nor a name on the Hub"),
        ("two words", ValueError, "neither a folder nor a name on the Hub"),
        ("user/..", ValueError, "neither a folder nor a name on the Hub"),
        ("", ValueError, "neither a folder nor a name on the Hub"),
        ("a\0b", ValueError, "neither a folder nor a name on the Hub"),
        ("x" * 10_000, ValueError, "neither a folder nor a name on the Hub"),
        ("user/repo", OSError, "not in the local cache and the Hub cannot be reached"),
    ],
)
def test_a_name_that_leads_nowhere(name, kind, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    with pytest.raises(kind) as error:
        VTPConfig.from_pretrained(name, cache_dir=tmp_path)
    one_sentence(error, says)


def test_a_base_model_that_is_a_path_is_not_pushed():
    with pytest.raises(ValueError) as error:
        VTPConfig(base_model_name_or_path="my/models/clip").push_to_hub("user/repo")
    one_sentence(error, "a name on the Hub")
    with pytest.raises(ValueError) as error:
        VTPConfig().push_to_hub("user/repo/more")
    one_sentence(error, "no name on the Hub")
