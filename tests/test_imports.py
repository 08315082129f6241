"""Which part of the package may import which, read from all files; and what `import hf_vtp` costs."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hf_vtp

PACKAGE = Path(hf_vtp.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TOOLS = ("tools", "tuning", "visualize", "metrics")  # all else is the core
BELOW = {  # by part of the core: what it must not import
    "methods": ("families", "towers", "prompts", "apply", "verifying"),
    "pruning": ("families", "towers", "prompts", "apply", "verifying"),
    "towers": ("families", "methods", "apply", "verifying"),
    "prompts": ("families", "methods", "apply", "verifying"),
    "families": ("methods", "apply", "verifying"),
}


def imported(path, source):
    """The modules of hf_vtp that a file imports or names as text, wherever in it, by their whole name."""
    package = ["hf_vtp", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            found.add(node.value)
    return {name for name in found if name.startswith("hf_vtp.")}


def part(name):
    """The first part of the package in a module's name."""
    return name.split(".")[1]


def of_file(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def wrong(path, source):
    """What a file imports and must not."""
    own = of_file(path)
    if own in TOOLS:
        return set()
    allowed = {"hf_vtp.tuning", "hf_vtp.tuning.tune"} if own == "__init__" else set()  # hf_vtp.tune
    forbidden = (*TOOLS, *BELOW.get(own, ()))
    return {name for name in imported(path, source) - allowed if part(name) in forbidden}


def test_the_core_imports_no_tool_and_methods_and_families_know_nothing_of_each_other():
    parts = {of_file(path) for path in FILES}
    assert {*TOOLS, *BELOW} <= parts and len(FILES) > 100
    assert {str(path.relative_to(PACKAGE)): wrong(path, path.read_text()) for path in FILES} == {
        str(path.relative_to(PACKAGE)): set() for path in FILES
    }


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("apply.py", "from .tools.bench import cli"),
        ("verifying/api.py", "def f():\n    from ..tools.bench.report import environment"),
        ("stats.py", "from . import tuning"),
        ("towers/plain.py", "import hf_vtp.visualize.kept as kept"),
        ("config.py", "if x:\n    from hf_vtp import metrics"),
        ("hub.py", "import importlib\nimportlib.import_module('hf_vtp.tools')"),
        ("__init__.py", "from .visualize import see"),
        ("methods/scorers/equal.py", "from ...families import rows"),
        ("methods/table.py", "from .. import families"),
        ("families/rows.py", "from ..methods.table import METHODS"),
        ("prompts/reader.py", "from ..families.base import Adapter"),
    ],
)
def test_every_way_of_importing_is_seen(file, source):
    assert wrong(PACKAGE / file, source)


def test_what_may_be_imported_is_not_complained_of():
    for file, source in (
        ("tools/bench/bench.py", "from ...apply import vtp_stats\nfrom ...tuning import tune"),
        ("families/rows.py", "from ..pruning.run import Run"),
        ("__init__.py", "from .tuning import tune"),
        ("apply.py", "import tools"),
    ):
        assert not wrong(PACKAGE / file, source)


def test_public_names_are_the_same_for_type_checkers_and_at_run_time():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    lazy = hf_vtp._MODULE_OF
    assert typed == lazy and {*lazy, "__version__"} == set(hf_vtp.__all__)
    assert len(hf_vtp.__all__) == len(set(hf_vtp.__all__))
    assert all(getattr(hf_vtp, name) is not None and name in dir(hf_vtp) for name in hf_vtp.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'apply_vpt'"):
        _ = hf_vtp.apply_vpt


def fresh(code):
    """The last line that code prints in an interpreter of its own, as JSON."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd="/",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_import_alone_imports_nothing_else():
    """Not even torch: that is the same for `import hf_vtp` and for what lists the commands."""
    code = "import sys, json; import importlib, typing; before = set(sys.modules); import hf_vtp; "
    code += "print(json.dumps(sorted(set(sys.modules) - before)))"
    assert fresh(code) == ["hf_vtp", "hf_vtp.version"]


def test_pruning_imports_the_core_alone():
    """Beside torch, Transformers and what a model of theirs needs; not `verify`, and no tool."""
    names = sorted({*hf_vtp.__all__} - {"tune", "verify"})
    code = f"""
import json, sys
import torch
from transformers import GenerationMixin, LlavaForConditionalGeneration
before = set(sys.modules)
from hf_vtp import {", ".join(names)}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    new = fresh(code)
    others = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names)
    assert others <= {"hf_vtp", "torch", "transformers"}
    own = [name for name in new if name.startswith("hf_vtp.")]
    assert 50 < len(own) < 110 and len(new) < 150, new
    assert not [name for name in own if part(name) in (*TOOLS, "verifying")]


def test_any_module_of_the_core_can_be_imported_first():
    """No order of imports is needed that only some starting points have."""
    names = [".".join(("hf_vtp", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES]
    names = [name.removesuffix(".__init__") for name in names if part(f"{name}.") not in TOOLS]
    code = f"""
import importlib, json, sys
import torch, transformers
failed = []
for name in {names!r}:
    for old in [n for n in sys.modules if n.split(".")[0] == "hf_vtp"]:
        del sys.modules[old]
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append([name, str(error)])
print(json.dumps(failed))
"""
    assert len(names) > 60 and fresh(code) == []
