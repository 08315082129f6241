"""Peak memory of a forward."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

MEANING = {
    "cuda": "weights, input and torch.cuda.max_memory_allocated's rise during one {call}",
    "cpu": "weights, input and the peak of live tensor allocations during one {call} (torch.profiler)",
}


def meaning(device: torch.device, call: str = "forward") -> str:
    """What `peak_bytes` counts on a device, of a call of that name."""
    return MEANING.get(device.type, "weights and input only: this device reports no peak").format(call=call)


def own_bytes(model: nn.Module, *inputs: Tensor) -> int:
    """Bytes of a model's parameters and buffers, and of its input."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers(), *inputs)}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """How far the memory held in tensors rises above its level before `call`, at the most.

    Workspaces that kernels get elsewhere than from torch's allocator are not in it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type == "cpu":
        return _peak_on_cpu(call)
    return 0


def _peak_on_cpu(call: Callable[[], object]) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or it writes to stderr each time
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        result = call()  # held, or its release would be counted as well
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    del result
    changes = [event for event in events if event.get("name") == "[memory]"]
    changes.sort(key=lambda event: (event["ts"], event["args"]["Ev Idx"]))
    return max(accumulate((event["args"]["Bytes"] for event in changes), initial=0))
