"""scripts/bench_weighted.py: the forms compute the same, and every row is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_vtp.tools.bench import weighted

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "bench_weighted.py"


@pytest.mark.parametrize("name", ["bias", "channel", "channel, padded to 8"])
def test_a_key_of_size_n_weighs_as_n_keys(name):
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 16, generator=g) for _ in range(3))
    sizes = torch.tensor([[1, 2, 3, 1, 4]] * 2)
    repeated = [x.repeat_interleave(sizes[0], dim=2) for x in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *repeated)
    found = weighted.FORMS[name](query, key, value, sizes.float())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(weighted.unweighted(query, key, value, sizes), expected, atol=1e-3)


def test_the_script(tmp_path):
    file = tmp_path / "r.json"
    told = [sys.executable, str(SCRIPT), "--rounds", "1", "--batch-size", "1", "--threads", "1"]
    done = subprocess.run([*told, "--device", "cpu", "--json", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    assert result == json.loads(done.stdout.splitlines()[-1])
    forms = [(row["model"], row["form"]) for row in result["rows"]]
    assert forms == [(model, form) for model in weighted.SHAPES for form in weighted.FORMS]
    assert all(row["error"] is None or row["error"] < 1e-5 for row in result["rows"])
