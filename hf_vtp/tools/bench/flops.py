"""FLOPs of a forward: matrix products, convolutions and the norms that scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

COUNTED = (
    "eager",
    "sdpa",
)  # attention whose kernels have a formula; the counter cannot see external ones


def _attention(query, key, value, *args, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _norm(x, *args, **kwargs) -> int:
    return 2 * prod(x)  # a square and a sum for each number


MISSING = {  # formulas torch does not have; its counter passes over what it does not know
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.linalg_vector_norm: _norm,
}


def count_flops(call: Callable[[], object]) -> int:
    """FLOPs of one call, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False, custom_mapping=MISSING) as counter:
        call()
    return counter.get_total_flops()


@contextmanager
def countable(model: nn.Module) -> Iterator[nn.Module]:
    """`model` on an attention kernel that can be counted; the work is the same, and its own comes back."""
    own = model.config._attn_implementation
    if own not in COUNTED:
        model.set_attn_implementation("sdpa")
    try:
        yield model
    finally:
        if own not in COUNTED:
            model.set_attn_implementation(own)
