"""The floors of a case: bytes by hand, peaks of this machine, and what follows from both."""

import pytest
import torch

from hf_vtp.tools.bench import floors

CPU = torch.device("cpu")


@pytest.mark.parametrize("inference", [True, False])
def test_bytes_by_hand(inference):
    x, w = torch.ones(4, 8), torch.ones(8, 16)
    index = torch.tensor([3, 1])
    expected = {  # float32, int64 indices
        lambda: x @ w: 4 * (32 + 128 + 64),
        lambda: x + 1: 4 * (32 + 32),
        lambda: x.reshape(8, 4).t()[:2].unsqueeze(0): 0,
        lambda: x.add_(1): 4 * (32 + 32),
        lambda: x[:1].expand(100, 8) * 2: 4 * (32 + 800),  # what is expanded is read once
        lambda: torch.nn.functional.embedding(index, x): 2 * 4 * 16,  # two rows, not the table
        lambda: x.to(torch.bfloat16): 32 * (4 + 2),
    }
    with torch.inference_mode(inference):
        assert [floors.bytes_moved(call) for call in expected] == list(expected.values())


def test_peaks_are_positive_and_the_fastest_call_counts(monkeypatch):
    monkeypatch.setattr(floors, "SIDE", {"cpu": 64})
    monkeypatch.setattr(floors, "COPIED", {"cpu": 1 << 16})
    peak = floors.peaks(CPU, torch.float32)
    assert peak["flops_per_s"] > 1e6 and peak["bytes_per_s"] > 1e6
    ticks = iter([0, 9] + [10, 13, 20, 22] + [30, 35] * floors.TRIES)  # the first is not counted
    monkeypatch.setattr(floors.time, "perf_counter", lambda: next(ticks))
    assert floors.fastest(lambda: None, CPU) == 2


def test_the_higher_floor_counts():
    peak = {"flops_per_s": 1e9, "bytes_per_s": 1e8}
    row = floors.floors(4e6, 1_000_000, peak, 20.0)
    assert row["arithmetic_floor_ms"] == pytest.approx(4) and row["memory_floor_ms"] == pytest.approx(10)
    assert row["times_floor"] == pytest.approx(2) and row["gbyte_moved"] == 1e-3
