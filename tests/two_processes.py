"""What each of two DDP processes runs; in a file of its own, so that they import no more than they need."""

import torch
from torch.nn.parallel import DistributedDataParallel
from vlm import Llava

from hf_vtp import apply_vtp, remove_vtp, vtp_stats

DROP = dict(method="qk_topk", layer=1, keep_ratio=0.4)
STEPS = [((1, 0), (2, 1)), ((0, 0), (1, 3))]  # images of each row, per rank: fewer, more, and none at all


def batch(rows, seed=1):
    inputs = Llava.inputs(rows, seed=seed)
    return inputs | {"labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def train(rank, folder):
    """Forward and backward of every step, on a model pruned before DDP and on one pruned after."""
    torch.set_num_threads(1)
    told = dict(init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.distributed.init_process_group("gloo", **told)
    results = {}
    for order in ("before", "after"):
        model = Llava.model().train()
        if order == "before":
            apply_vtp(model, **DROP)
        # the tower's last layer is never read, and a rank without images uses neither tower nor projector
        ddp = DistributedDataParallel(model, find_unused_parameters=True)
        if order == "after":
            apply_vtp(ddp, **DROP)
        collected = []
        for step in STEPS:
            ddp.zero_grad()
            ddp(**batch(step[rank], seed=rank)).loss.backward()
            collected.append(gradients(model))
        kept = vtp_stats(ddp).num_kept
        remove_vtp(ddp)
        with torch.no_grad():
            results[order] = collected, kept, ddp(**batch((1, 0))).logits
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()
