"""Where a device would be waited for: never in a tower with fixed counts, in prompts only to condense."""

import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from models import IMAGE_METHODS, clip_vision, pixels
from qwen import Qwen
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from vlm import FAMILIES

import hf_vtp
from hf_vtp import apply_vtp, list_methods, vtp, vtp_stats
from hf_vtp.pruning import ward

FIXED = [name for name in IMAGE_METHODS if list_methods()[name]["keep_ratio"] == "exact"]
PACKAGE = Path(hf_vtp.__file__).parent
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "equal", "item"}
WAITS |= {"unique_consecutive", "_unique2", "bincount"}
pytestmark = pytest.mark.models


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch):
    """What asks a tensor only on a CPU, where there is nothing to wait for, goes the way of a device."""
    monkeypatch.setattr(ward, "may_wait", lambda x: False)


class Waits(TorchDispatchMode):
    """Counts the operations whose result the host needs, by the function of hf_vtp that asked; "": others."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        boolean = name == "index" and any(x is not None and x.dtype == torch.bool for x in args[1])
        if name in WAITS or boolean:
            self.counts[asked()] += 1
        return function(*args, **(kwargs or {}))


def is_ours(filename):
    """Whether a file is the package's: other things, the environment say, may lie in a folder of its name."""
    return PACKAGE in Path(filename).parents


def asked():
    frame = sys._getframe(2)
    while frame is not None:
        if is_ours(frame.f_code.co_filename):
            return frame.f_code.co_name
        frame = frame.f_back
    return ""


def waits(call):
    with torch.no_grad(), Waits() as mode:
        call()
    return mode.counts


def test_the_counter_counts():
    x = torch.tensor([1.0, 0.0])
    assert waits(lambda: x.sum().item())[""] == 1 and waits(lambda: x[x > 0])[""] == 1
    assert (
        sum(waits(lambda: apply_vtp(clip_vision(), method="dynamic", keep_ratio=0.5)(pixels())).values()) > 0
    )


@pytest.mark.parametrize("method", FIXED)
def test_a_tower_with_fixed_counts_never_waits(method):
    model = apply_vtp(clip_vision(), keep_ratio=0.4, method=method)
    assert not waits(lambda: model(pixels()))


# our functions that call Transformers' own window index and rope index, which it would call without us
ITS_OWN = ("begin", "local_positions")


@pytest.mark.parametrize("method", ["vtp", "qk_topk", "tome"])
def test_hooks_add_no_wait_to_qwens_blocks(method):
    """Lengths of windows are worked out once a stage for each kind of block, not in every block."""
    grid_thw = torch.tensor([(1, 8, 12), (1, 4, 4)])
    model, patches = Qwen.model(), torch.randn(112, 96)
    counts = []
    for layers in ([1], [0, 1, 2]):
        with vtp(model, layer=layers, keep_ratio=0.5, method=method):
            counts.append(waits(lambda: model.model.visual(patches, grid_thw=grid_thw)))
    # blocks of both kinds follow the one stage, one block each of the three
    for number, found in zip((2, 3), counts, strict=True):
        ours = {name: n for name, n in found.items() if name and name not in ITS_OWN}
        assert ours == {"seqlens": number}


def test_hooks_never_wait_beside_flash_attention(monkeypatch):
    """Nor break the graph: they hand on lengths that stay on the device. A stub is in the kernel's place."""
    seen = []

    def kernel(module, query, key, value, attention_mask, **kwargs):
        seen.append(kwargs["cu_seq_lens_q"])
        return value.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", kernel)
    grid_thw, patches = torch.tensor([(1, 8, 12), (1, 4, 4)]), torch.randn(112, 96)
    model = Qwen.model()
    model.model.visual.config._attn_implementation = "flash_attention_2"
    unpruned = waits(lambda: model.model.visual(patches, grid_thw=grid_thw))
    with vtp(model, layer=[0, 1, 2], keep_ratio=0.5):
        pruned = waits(lambda: model.model.visual(patches, grid_thw=grid_thw))
        torch.compiler.reset()
        with torch.no_grad():
            found = torch._dynamo.explain(model.model.visual)(patches, grid_thw=grid_thw)
    torch.compiler.reset()
    assert set(pruned) <= {"", *ITS_OWN} and pruned.total() == unpruned.total()
    assert seen[7][-1] == 4 * (12 + 2)
    assert not any(is_ours(reason.user_stack[-1].filename) for reason in found.break_reasons)


def test_hooks_break_qwens_graph_in_one_place():
    """Transformers' blocks break it each at the same lengths, which no graph can know."""
    grid_thw = torch.tensor([(1, 8, 12), (1, 4, 4)])
    model, patches = Qwen.model(), torch.randn(112, 96)
    broken = {}
    for pruned in (False, True):
        torch.compiler.reset()
        with vtp(model, layer=1, keep_ratio=0.5) if pruned else nullcontext(), torch.no_grad():
            found = torch._dynamo.explain(model.model.visual)(patches, grid_thw=grid_thw)
        inmost = [reason.user_stack[-1] for reason in found.break_reasons]
        broken[pruned] = {f.line for f in inmost if is_ours(f.filename)}, len(inmost)
    torch.compiler.reset()
    (lines, others), (own, every) = broken[False], broken[True]
    assert not lines and others and len(own) == 1 and "unique_consecutive" in own.pop()
    assert every <= 2 * others + 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_is_condensed_with_few_waits(family):
    """As many for a large batch as for a small one, and none of them in the decode steps."""
    family = FAMILIES[family]
    model = apply_vtp(family.model(), keep_ratio=0.5)
    found = []
    for rows, steps in (((1, 2), 0), ((3, 3, 2), 0), ((1, 2), 2), ((1, 2), 9)):
        inputs = family.inputs(rows)
        call = {"max_new_tokens": steps, "min_new_tokens": steps} if steps else {}
        counts = waits(lambda: (model.generate if steps else model)(**inputs, **call))  # noqa: B023
        found.append({name: n for name, n in counts.items() if name and name not in ITS_OWN})
    assert found[0] == found[1]
    assert found[0].pop("seqlens", 0) <= len(vtp_stats(model).stages) and sum(found[0].values()) <= 6
    ours = [{name: n for name, n in counts.items() if name != "generate"} for counts in found[2:]]
    assert ours[0] == ours[1]
