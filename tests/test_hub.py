"""The real client and a Hub on the loopback address: push, load, prune, and everything that goes wrong."""

import json

import pytest
from hub_client import Client, Failed
from hub_server import Hub
from references.probes import tensors
from safetensors.torch import save

from hf_vtp import __version__

MODEL = """
import torch
from models import clip, pixels
from hf_vtp import VTPConfig, apply_vtp, remove_vtp, vtp_stats

def embed(model):
    return model.get_image_features(pixel_values=pixels(2)).pooler_output
"""
CONFIG = "VTPConfig(keep_ratio=0.4, layer=1, method='random', scorer_options={'seed': 5})"


@pytest.fixture(scope="module")
def hub():
    with Hub() as server:
        yield server
        assert server.unknown == []  # every request the clients made had its endpoint
        assert server.drop == []


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hub-home")


@pytest.fixture(scope="module")
def client(hub, home):
    running = Client(hub.endpoint, home)
    running.run(MODEL)
    yield running
    running.close()


def one_sentence(failed, kind, *says):
    assert failed.kind == kind and "\n" not in failed.text and len(failed.text) < 500, failed.text
    assert all(part in failed.text for part in says), failed.text


def refused(client, code, kind, *says, token=None, cause=None):
    with pytest.raises(Failed) as error:
        client.run(code, token)
    one_sentence(error.value, kind, *says)
    assert cause is None or cause in error.value.causes
    return error.value


def test_a_config_is_pushed_loaded_and_prunes_alike(hub, client):
    client.run(f"model = clip('CLIPModel'); plain = embed(model); apply_vtp(model, {CONFIG})")
    client.run("VTPConfig(**model.config.vtp_config).push_to_hub('user/config')", "hf_user")
    assert json.loads(hub.files("user/config")["vtp_config.json"]) == {
        **{"keep_ratio": 0.4, "layer": 1, "method": "random", "scorer_options": {"seed": 5}},
        **{
            "model_type": "clip",
            "num_layers": 4,
            "vtp_version": __version__,
        },
    }
    code = """
pruned = embed(model)
twin = apply_vtp(clip('CLIPModel'), 'user/config')
result = [torch.equal(embed(twin), pruned), torch.equal(embed(twin), plain), vtp_stats(twin).num_kept]
"""
    assert client.run(code) == [True, False, [14, 14]]
    client.run("embed(apply_vtp(twin, 'user/config', keep_ratio=0.5))")
    assert client.run("result = vtp_stats(twin).num_kept") == [18, 18]


def test_a_pruned_model_is_pushed_itself_and_remembers(hub, client):
    client.run(f"model = apply_vtp(clip('CLIPModel'), {CONFIG}); model.push_to_hub('user/model')", "hf_user")
    files = hub.files("user/model")
    assert json.loads(files["config.json"])["vtp_config"]["method"] == "random"
    assert any("PUT /lfs/" in call for call in hub.calls) and len(files["model.safetensors"]) > 100_000
    code = """
from transformers import AutoModel
loaded = AutoModel.from_pretrained('user/model')
result = [torch.equal(embed(loaded), plain)]
apply_vtp(loaded)
result += [torch.equal(embed(loaded), embed(model)), loaded.config.vtp_config['base_model_name_or_path']]
remove_vtp(loaded)
result += [torch.equal(embed(loaded), plain), hasattr(loaded.config, 'vtp_config')]
"""
    client.run("plain = embed(clip('CLIPModel'))")
    assert client.run(code) == [True, True, "user/model", True, False]


def test_what_was_pushed_is_listed(hub, client):
    client.run(f"apply_vtp(clip('CLIPModel'), {CONFIG}).push_to_hub('user/listed')", "hf_user")
    code = """
from huggingface_hub import HfApi
api = HfApi()
rows = [[f.path, f.size, f.lfs and f.lfs.sha256] for f in api.list_repo_tree('user/listed')]
result = [api.list_repo_files('user/listed'), rows, api.file_exists('user/listed', 'vtp_config.json')]
"""
    names, rows, has_config = client.run(code)
    files = hub.files("user/listed")
    assert sorted(names) == sorted(files) and not has_config
    assert {path: size for path, size, _ in rows} == {path: len(content) for path, content in files.items()}
    assert [path for path, _, sha in rows if sha] == ["model.safetensors"]


def test_a_private_repository_opens_to_its_token_only(hub, client):
    client.run("VTPConfig(keep_ratio=0.3).push_to_hub('user/secret', private=True)", "hf_user")
    assert hub.repos["user/secret"].private
    load = "result = VTPConfig.from_pretrained('user/secret', force_download=True).keep_ratio"
    assert client.run(load, "hf_user") == 0.3
    assert client.run("result = VTPConfig.from_pretrained('user/secret', token='hf_user').keep_ratio") == 0.3
    fresh = load.replace("force_download=True", "cache_dir='elsewhere'")
    for token in (None, "hf_other"):
        refused(
            client, fresh, "OSError", "user/secret", "private", token=token, cause="RepositoryNotFoundError"
        )
    code = "apply_vtp(clip('CLIPModel'), 'user/hidden')"
    hub.put("user/hidden", private=True, vtp_config__json=b'{"keep_ratio": 0.2}')
    refused(client, code, "OSError", "user/hidden", "pass token=")
    client.run(code, "hf_user")


def test_a_private_push_does_not_go_to_a_public_repository(hub, client):
    hub.put("user/open")
    code = "VTPConfig().push_to_hub('user/open', private=True)"
    refused(client, code, "PermissionError", "user/open exists and is public", token="hf_user")
    assert "vtp_config.json" not in hub.files("user/open")


def test_what_is_not_there_is_said(hub, client):
    hub.put("user/empty")
    load = "VTPConfig.from_pretrained({})"
    for token in (None, "hf_user"):
        says = "there is no repository user/missing"
        refused(client, load.format("'user/missing'"), "OSError", says, token=token)
    says = "user/empty on the Hub has no vtp_config.json"
    refused(client, load.format("'user/empty'"), "OSError", says, cause="EntryNotFoundError")
    says = "has no such revision"
    refused(
        client, load.format("'user/empty', revision='v9'"), "OSError", says, cause="RevisionNotFoundError"
    )


def test_who_may_not_write_is_told(hub, client):
    hub.put("user/taken")
    push = "VTPConfig().push_to_hub('user/taken')"
    refused(client, push, "OSError", "a push to user/taken needs a token")
    refused(client, push, "OSError", "user/taken", "may not write", token="hf_other")
    refused(client, push, "OSError", "user/taken", "does not know this token", token="hf_expired")
    refused(client, "VTPConfig().push_to_hub('user/new')", "OSError", "needs a token", "log in")
    assert "vtp_config.json" not in hub.files("user/taken") and "user/new" not in hub.repos


def test_a_revision_is_a_branch_and_a_pull_request_changes_nothing(hub, client):
    client.run("VTPConfig(keep_ratio=0.5).push_to_hub('user/refs')", "hf_user")
    client.run("VTPConfig(keep_ratio=0.3).push_to_hub('user/refs', revision='dev')", "hf_user")
    code = "result = VTPConfig(keep_ratio=0.1).push_to_hub('user/refs', create_pr=True).pr_url"
    assert client.run(code, "hf_other") == f"{hub.endpoint}/user/refs/discussions/1"
    for revision, ratio in [
        ("main", 0.5),
        ("dev", 0.3),
        ("refs/pr/1", 0.1),
        (hub.repos["user/refs"].refs["dev"], 0.3),
    ]:
        assert json.loads(hub.files("user/refs")["vtp_config.json"])["keep_ratio"] == 0.5
        load = f"result = VTPConfig.from_pretrained('user/refs', revision={revision!r}).keep_ratio"
        assert client.run(load) == ratio


def test_a_connection_that_breaks_in_a_commit_leaves_nothing_half_done(hub, client):
    client.run("VTPConfig(keep_ratio=0.5).push_to_hub('user/broken')", "hf_user")
    before = dict(hub.files("user/broken"))
    push = "result = VTPConfig(keep_ratio=0.2).push_to_hub('user/broken').oid"
    hub.drop.append(("POST /api/models/user/broken/commit", "before"))
    says = ("connection to the Hub broke", "user/broken", "try again")
    refused(client, push, "OSError", *says, token="hf_user", cause="HTTPError")
    assert hub.files("user/broken") == before and len(hub.repos["user/broken"].commits) == 2
    assert client.run("result = VTPConfig.from_pretrained('user/broken').keep_ratio") == 0.5
    oid = client.run(push, "hf_user")
    assert hub.repos["user/broken"].refs["main"] == oid
    assert client.run("result = VTPConfig.from_pretrained('user/broken').keep_ratio") == 0.2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, client):
    push = "result = VTPConfig(keep_ratio=0.2).push_to_hub('user/lost').oid"
    hub.drop.append(("POST /api/models/user/lost/commit", "after"))
    refused(client, push, "OSError", "connection to the Hub broke", token="hf_user")
    commits = len(hub.repos["user/lost"].commits)
    assert client.run(push, "hf_user") == hub.repos["user/lost"].refs["main"]
    assert len(hub.repos["user/lost"].commits) == commits == 2


def test_a_new_repository_whose_first_commit_breaks_stays_empty(hub, client):
    push = "VTPConfig(keep_ratio=0.2).push_to_hub('user/first')"
    hub.drop.append(("POST /api/models/user/first/commit", "before"))
    refused(client, push, "OSError", "connection to the Hub broke", token="hf_user")
    refused(client, "VTPConfig.from_pretrained('user/first')", "OSError", "has no vtp_config.json")
    client.run(push, "hf_user")
    assert client.run("result = VTPConfig.from_pretrained('user/first').keep_ratio") == 0.2


def test_a_model_push_that_breaks_shows_neither_weights_nor_config(hub, client):
    client.run(f"model = apply_vtp(clip('CLIPModel'), {CONFIG})")
    push = "model.push_to_hub('user/half')"
    hub.drop.append(("POST /api/models/user/half/commit", "before"))
    with pytest.raises(Failed):  # the client's own error: the push is Transformers'
        client.run(push, "hf_user")
    assert set(hub.files("user/half")) == {".gitattributes"}
    client.run(push, "hf_user")
    assert {"config.json", "model.safetensors"} <= set(hub.files("user/half"))


HOSTILE = {
    "truncated": (b'{"method": "vt', "not valid JSON"),
    "types": (b'{"method": 3}', "method must be a name"),
    "numbers": (b'{"min_keep": ' + b"9" * 9000 + b"}", "number of 9000 digits"),
    "nesting": (b"[" * 60_000, "nested deeper"),
    "path": (b'{"method": "../../../etc/passwd"}', "unknown method '../../../etc/passwd'"),
    "binary": (bytes(range(256)), "UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_on_the_hub_is_one_clear_error(name, hub, client):
    content, says = HOSTILE[name]
    hub.put(f"other/{name}", vtp_config__json=content)
    code = f"apply_vtp(clip('CLIPModel'), 'other/{name}')"
    refused(client, code, "ValueError", says, f"vtp_config.json of other/{name}")


def test_a_huge_file_is_refused_before_it_is_downloaded(hub, client):
    hub.put("other/huge", vtp_config__json=b" " * 5_000_000 + b"{}")
    refused(client, "VTPConfig.from_pretrained('other/huge')", "ValueError", "larger than 65536 bytes")
    calls = [call for call in hub.calls if "/other/huge/" in call]
    assert calls and not any(call.startswith("GET") for call in calls)


def test_a_config_for_another_model_is_refused_from_the_hub(hub, client):
    hub.put("other/llava", vtp_config__json=b'{"model_type": "llava"}')
    hub.put("other/deep", vtp_config__json=b'{"model_type": "clip", "num_layers": 24}')
    code = "apply_vtp(clip('CLIPModel'), 'other/{}')"
    refused(client, code.format("llava"), "ValueError", "made for model_type 'llava'")
    refused(client, code.format("deep"), "ValueError", "encoder of 24 layers, and this one has 4")


def test_offline_a_warm_cache_is_enough_and_a_cold_one_is_said(hub, client, home):
    hub.put("other/warm", vtp_config__json=b'{"keep_ratio": 0.35}')
    hub.put("other/cold", vtp_config__json=b'{"keep_ratio": 0.35}')
    load = "result = VTPConfig.from_pretrained('other/{}').keep_ratio"
    assert client.run(load.format("warm")) == 0.35
    calls = len(hub.calls)
    without = load.replace("')", "', local_files_only=True)")
    assert client.run(without.format("warm")) == 0.35
    refused(client, without.format("cold"), "OSError", "other/cold is not in the local cache")
    offline = Client(hub.endpoint, home, offline=True)
    try:
        offline.run(MODEL)
        assert offline.run(load.format("warm")) == 0.35
        offline.run("model = apply_vtp(clip('CLIPModel'), 'other/warm'); embed(model)")
        assert offline.run("result = vtp_stats(model).num_kept") == [13, 13]
        refused(offline, load.format("cold"), "OSError", "other/cold is not in the local cache")
        push = "VTPConfig().push_to_hub('user/offline')"
        refused(offline, push, "OSError", "while HF_HUB_OFFLINE is set", token="hf_user")
    finally:
        offline.close()
    assert len(hub.calls) == calls


def test_a_hub_that_is_down_is_said_and_a_warm_cache_still_serves(hub, client, home):
    hub.put("other/down", vtp_config__json=b'{"keep_ratio": 0.35}')
    load = "result = VTPConfig.from_pretrained('other/{}').keep_ratio"
    assert client.run(load.format("down")) == 0.35
    stopped = Client("http://127.0.0.1:9", home)  # no one listens there
    try:
        stopped.run(MODEL)
        assert stopped.run(load.format("down")) == 0.35
        push = "VTPConfig().push_to_hub('user/down')"
        refused(
            stopped, push, "OSError", "connection to the Hub broke", token="hf_user", cause="ConnectError"
        )
    finally:
        stopped.close()


def test_a_probe_comes_from_the_hub_and_a_large_or_missing_one_is_refused(hub, client):
    hub.put("user/probe", **{"probe.safetensors": save(tensors(32))})
    hub.put("user/large", **{"probe.safetensors": b"x" * 100})
    hub.put("user/without", **{"README.md": b"no probe"})
    fields = "scorer='linear_probe', selector='top_k', layer=1, scorer_options={'weights': 'user/%s'}"
    client.run("import hf_vtp.probe_files")
    client.run(f"model = clip('CLIPModel'); apply_vtp(model, {fields % 'probe'}); embed(model)")
    client.run("hf_vtp.probe_files.MAX_BYTES = 50")
    large = refused(
        client, f"apply_vtp(model, {fields % 'large'})", "ValueError", "user/large is larger than 50"
    )
    assert "probe.safetensors" in large.text
    refused(
        client, f"apply_vtp(model, {fields % 'without'})", "OSError", "user/without on the Hub has no probe"
    )
