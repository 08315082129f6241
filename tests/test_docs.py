"""The pages of docs/ speak of what is there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from load_script import script
from qwen import Qwen

import hf_vtp
from hf_vtp.methods.scorers import SCORERS
from hf_vtp.methods.table import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
A_METHOD = (ROOT / "docs" / "add-a-method.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert links and [link for link in links if not (page.parent / link).exists()] == []


def test_the_architecture_can_be_drawn(tmp_path):
    script("dev/draw_architecture").draw(tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").stat().st_size > 50_000


def blocks():
    """The page of a method, its loops, and a method of the reader's own, as docs/add-a-method.md has them."""
    return re.findall(r"```python\n(.*?)```", A_METHOD, flags=re.DOTALL)


def test_the_method_that_is_shown_is_the_one_that_is_there():
    page, loops, _ = blocks()
    assert page == (ROOT / "hf_vtp" / "methods" / "fopru.py").read_text()
    assert loops == (ROOT / "tests" / "references" / "fopru.py").read_text()


def test_a_method_needs_no_file_of_the_package_but_its_page(tmp_path):
    package = tmp_path / "hf_vtp"
    shutil.copytree(ROOT / "hf_vtp", package, ignore=shutil.ignore_patterns("__pycache__", "tools"))
    (package / "methods" / "fopru.py").unlink()
    assert "fopru" not in "".join(path.read_text() for path in package.rglob("*.py"))
    code = f"""
import importlib, json, sys
from pathlib import Path
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
import hf_vtp
before = list(hf_vtp.list_methods())
Path(hf_vtp.__file__).with_name("methods").joinpath("fopru.py").write_text({blocks()[0]!r}, encoding="utf-8")
for name in [name for name in sys.modules if name.split(".")[0] == "hf_vtp"]:
    del sys.modules[name]
importlib.invalidate_caches()
import hf_vtp
new = [name for name in hf_vtp.list_methods() if name not in before]
model = CLIPVisionModel(CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=3,
                                         num_attention_heads=2, image_size=16, patch_size=4))
hf_vtp.apply_vtp(model, method="fopru_row", keep_ratio=0.5, layer=1)
model(torch.randn(1, 3, 16, 16))
print(json.dumps([hf_vtp.__file__, new, hf_vtp.vtp_stats(model).keep_indices[0].tolist()]))
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    file, new, kept = json.loads(done.stdout.splitlines()[-1])
    assert file.startswith(str(tmp_path)) and new == ["fopru_rank", "fopru_row"]
    rows = {place // 4 for place in kept}
    assert kept == [4 * row + column for row in sorted(rows) for column in range(4)] and len(rows) == 2


def test_the_method_of_the_readers_own_works_with_merge_units():
    *_, snippet = blocks()
    model, inputs = Qwen.model(), Qwen.inputs((1, 2))
    try:
        exec(snippet, {"model": model})
        model(**inputs)
        stats = hf_vtp.vtp_stats(model)
        assert stats.num_kept == [round(0.5 * n) for n in stats.num_tokens]
        assert stats.stages[0].scores[0] is None and len(stats.stages[0].keep_indices[0]) == 4  # too few yet
        for scores in (*stats.stages[0].scores[1:], *stats.stages[-1].scores):
            assert torch.isfinite(scores).all()
    finally:
        SCORERS.pop("key_variance", None)
        METHODS.pop("key_spread", None)
