"""The wheel holds the whole package and nothing else; importing it is cheap and changes nothing."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

import hf_vtp

ROOT = Path(hf_vtp.__file__).parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "hf_vtp").rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}
PAGE = "hf_vtp.tools.demo.page"  # needs gradio


def python(code, path=ROOT):
    """Run code in a fresh interpreter elsewhere, `path` searched first; its last line as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, with the build backend of this environment and no network."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    for name in ("hf_vtp", "tests", "scripts"):  # the last two must not get in
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", "out", "."], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((folder / "out").glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"hf_vtp-{hf_vtp.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    info = {name for name in names if name.startswith(f"hf_vtp-{hf_vtp.__version__}.dist-info/")}
    assert names - info == SOURCES
    kinds = {Path(name).suffix for name in SOURCES}
    assert kinds == {".py", ".typed", ".md", ".png", ".jpg"}  # a card's template, pictures for the demo
    assert {f"{sorted(info)[0].split('/')[0]}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= info


def requirements(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"hf_vtp-{hf_vtp.__version__}.dist-info/METADATA").decode()
    return [line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")]


def test_the_wheel_says_what_it_needs(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"hf_vtp-{hf_vtp.__version__}.dist-info/METADATA").decode()
    assert "Requires-Python: >=3.10" in metadata and "License-Expression: Apache-2.0" in metadata
    needed = requirements(wheel)
    always = {Requirement(line).name for line in needed if "extra ==" not in line}
    own = {"torch", "transformers", "accelerate", "datasets", "evaluate", "pillow"}
    assert always == own | {"huggingface-hub", "numpy", "packaging", "safetensors", "tokenizers"}


def pinned(name):
    """A package's version in a file of constraints."""
    lines = (ROOT / name).read_text().splitlines()
    return next(Version(line.split("==")[1]) for line in lines if line.startswith("transformers=="))


def test_the_range_of_transformers_is_what_is_tested(wheel):
    """From the oldest release that `make test` runs on to the pinned one, and none after it."""
    (bounds,) = (Requirement(x).specifier for x in requirements(wheel) if x.startswith("transformers"))
    oldest, newest = pinned("constraints-oldest.txt"), pinned("constraints.txt")
    assert all(bounds.contains(v) for v in (oldest, newest, f"{newest.major}.{newest.minor}.99"))
    before, after = (f"{v.major}.{v.minor + step}.0" for v, step in ((oldest, -1), (newest, 1)))
    assert not bounds.contains(before) and not bounds.contains(after)


NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}  # where a package's differs


def imported(folder):
    """Names of what the files below a folder import from outside it, without the standard library."""
    files = list((ROOT / folder).rglob("*.py"))
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    full = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    full += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level and n.module]
    own = {"hf_vtp", *(path.stem for path in files), *(path.parent.name for path in files)}
    return {name.split(".")[0] for name in full} - set(sys.stdlib_module_names) - own


def test_what_is_imported_is_declared(wheel):
    """What the package and the scripts import comes with it or its extras; what tests import, with theirs."""
    declared = {None: set(), "bench": set(), "demo": set(), "test": set()}
    for line in requirements(wheel):
        extra = re.search(r"extra == '(\w+)'", line)
        declared.setdefault(extra and extra[1], set()).add(canonicalize_name(Requirement(line).name))
    used = declared[None] | declared["bench"] | declared["demo"]
    for folder, known in (("hf_vtp", used), ("scripts", used), ("tests", used | declared["test"])):
        found = {NAMES.get(name, canonicalize_name(name)) for name in imported(folder)}
        found -= {"references"} if folder == "scripts" else set()  # of the tests, which one of dev/ runs
        assert folder == "scripts" or {"torch", "transformers"} <= found
        assert found <= known, found - known
    tools = {"tools", "tuning", "visualize", "metrics"}
    for path in (ROOT / "hf_vtp").iterdir():
        if path.is_dir() and path.name not in tools:
            found = {NAMES.get(name, canonicalize_name(name)) for name in imported(path)}
            assert found <= declared[None] | {"rich"}, path  # a table of `verify` is drawn without it too


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder in which the wheel was installed."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


def test_the_wheel_works_where_it_is_installed(installed):
    code = """
import importlib.util, json, pkgutil, sys
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
import hf_vtp
names = [m.name for m in pkgutil.walk_packages(hf_vtp.__path__, "hf_vtp.")]
names = [n for n in names if n != PAGE or importlib.util.find_spec("gradio")]
files = [importlib.import_module(n).__file__ for n in names] + [hf_vtp.__file__]
config = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
                          image_size=16, patch_size=4)
model = hf_vtp.apply_vtp(CLIPVisionModel(config), keep_ratio=0.5)
tokens = model(torch.zeros(1, 3, 16, 16)).last_hidden_state.shape[1]
from importlib.metadata import version
print(json.dumps([names, files, tokens, hf_vtp.__version__, version("hf-vtp")]))
"""
    names, files, tokens, *versions = python(code.replace("PAGE", repr(PAGE)), path=installed)
    modules = {name for name in SOURCES if name.endswith(".py")}
    assert len(modules) - 2 <= len(names) <= len(modules) - 1  # not the top, perhaps not the page
    assert all(file.startswith(str(installed)) for file in files)
    assert tokens == 1 + 8
    assert versions == [hf_vtp.__version__] * 2


def test_the_command_line_works_where_it_is_installed(installed, tmp_path):
    """Without a repository: a card's template is there, models of the testbed are stand-ins."""
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    environment = {key: value for key, value in os.environ.items() if key != "HF_VTP_TESTBED"}
    result = ROOT / "model_cards" / "results" / "cpu-2core" / "clip_vit_b16_fp32.json"
    Image.effect_noise((60, 60), 90).save(tmp_path / "photo.png")

    def hf_vtp(*argv):
        command = [sys.executable, str(installed / "bin" / "hf-vtp"), *map(str, argv)]
        environment["PYTHONPATH"] = path
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    assert "bench-clip" in hf_vtp().stdout
    hf_vtp("make-model-card", "--model", "a/b", "--results", result, "--out", "card.md")
    assert "hf-vtp bench-clip --model a/b" in (tmp_path / "card.md").read_text()
    assert "random weights" in hf_vtp("visualize", "photo.png", "--out", "kept.png").stderr
    assert (tmp_path / "kept.png").is_file()


def test_public_names():
    wanted = "apply_vtp remove_vtp vtp vtp_stats list_methods VTPConfig VTPStats VisionTokens register_scorer"
    wanted += " register_selector register_merger register_adapter Adapter verify tune __version__"
    assert set(wanted.split()) <= set(hf_vtp.__all__)
    assert all(hasattr(hf_vtp, name) for name in hf_vtp.__all__)


SNAPSHOT = """
import importlib, json
import torch, transformers
from transformers import masking_utils, modeling_utils

MODELS = [importlib.import_module(f"transformers.models.{name}.modeling_{name}")
          for name in ("clip", "llava", "qwen2_5_vl", "llama")]
GENERATION = importlib.import_module("transformers.generation.utils")
MODULES = [*MODELS, modeling_utils, masking_utils, GENERATION, torch.nn]
CLASSES = [torch.nn.Module, torch.nn.Linear, transformers.PreTrainedModel, transformers.GenerationMixin]
CLASSES += [c for m in MODELS for c in vars(m).values() if isinstance(c, type) and c.__module__ == m.__name__]
GLOBAL_HOOKS = [n for n in vars(torch.nn.modules.module) if n.startswith("_global_") and n.endswith("hooks")]

def snapshot():
    tables = modeling_utils.ALL_ATTENTION_FUNCTIONS, masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    found = {}
    for place in (*MODULES, *CLASSES, torch.nn.modules.module):
        name = f"{place.__module__}.{place.__qualname__}" if isinstance(place, type) else place.__name__
        found.update({f"{name}:{key}": id(value) for key, value in vars(place).items()})
    for i, table in enumerate(tables):
        found.update({f"table {i}:{key}": id(table[key]) for key in table.keys()})
    for name in GLOBAL_HOOKS:
        found[f"hooks {name}"] = len(getattr(torch.nn.modules.module, name))
    found["modes"] = [torch.is_grad_enabled(), str(torch.get_default_dtype()), torch.get_num_threads()]
    return found


SETUP
before = snapshot()
ACTION
after = snapshot()
changed = [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]
print(json.dumps([len(before), changed]))
"""


def changes(action, setup=""):
    """How much a snapshot of torch and Transformers holds, and what of it an action changes."""
    return python(SNAPSHOT.replace("SETUP", setup).replace("ACTION", action))


def test_import_changes_nothing():
    size, changed = changes("from hf_vtp import *")
    assert size > 500 and changed == []


def test_the_snapshot_would_see_a_change():
    action = """
modeling_utils.ALL_ATTENTION_FUNCTIONS.register("vtp", print)
transformers.CLIPModel.forward = lambda self: None
transformers.GenerationMixin.extra = 1
"""
    assert len(changes(action)[1]) == 3


def test_pruning_changes_no_class_and_no_registry():
    setup = """
config = transformers.CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=3,
                                       num_attention_heads=2, image_size=16, patch_size=4)
model, pixel_values = transformers.CLIPVisionModel(config), torch.zeros(1, 3, 16, 16)
model(pixel_values, output_hidden_states=True)  # what Transformers itself leaves behind
"""
    action = """
import hf_vtp
hf_vtp.apply_vtp(model, keep_ratio=0.5)
assert model(pixel_values, output_hidden_states=True).last_hidden_state.shape[1] == 9
"""
    assert changes(action, setup)[1] == []


def test_no_torchvision_is_no_news():
    """The testbed, the pictures and the benchmarks ask for image processors on PIL where they have to."""
    code = """
import contextlib, io, json
heard = io.StringIO()
with contextlib.redirect_stderr(heard):
    import hf_vtp.tools.testbed.load, hf_vtp.visualize.preview, hf_vtp.tools.shipped
    from hf_vtp.tools.towers import processor_of
    from transformers import CLIPVisionConfig
    found = type(processor_of("a name", "random", CLIPVisionConfig())).__name__
print(json.dumps([found, [line for line in heard.getvalue().splitlines() if "torchvision" in line]]))
"""
    found, said = python(code)
    assert found.startswith("CLIPImageProcessor") and said == []
