"""The training loop of all three models: seeded, resumable, with a progress bar."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import CLIPModel, PreTrainedModel

from ..bench.cli import UsageError, replacing
from .batches import Batches, clip_batch, llava_batch, qwen_batch
from .losses import Places, answer_loss, clip_loss
from .models import NEW
from .recipes import Recipe

KINDS = {  # by model: the function that makes a batch, its loss, and whether pictures differ in size
    "clip": (clip_batch, clip_loss, False),
    "llava": (llava_batch, answer_loss, False),
    "qwen2_5_vl": (qwen_batch, answer_loss, True),
}
SAVE_EVERY, LOG_EVERY = 180.0, 50  # seconds, steps
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass
class Trained:
    """A model, and the seconds that its training took in all runs together."""

    model: PreTrainedModel
    seconds: float


def train(
    name: str,
    recipe: Recipe,
    out: Path,
    device: torch.device,
    seed: int,
    tower: CLIPModel | None,
    workers: int,
    compiled: bool = False,
) -> Trained:
    """Train one of KINDS, resuming from the checkpoint in `out` if there is one.

    Args:
        tower: for LLaVA the CLIP whose vision tower it begins with.
        workers: processes that draw scenes; 0 draws them in this one.
    """
    collate, loss_of, varied = KINDS[name]
    torch.manual_seed(seed)
    model, places = NEW[name](), Places()
    if tower is not None:
        _take_tower(model, tower)
    model.set_attn_implementation("eager" if device.type == "cpu" else "sdpa")  # on a CPU eager is the faster
    for module in (model, places):
        module.to(device).train()
    if compiled:
        _compile(model)
    optimizers = _optimizers(model, places, recipe)
    state = {"step": 0, "seconds": 0.0}
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        state = _restore(checkpoint, recipe, seed, model, places, optimizers)
    batches = Batches(collate, seed, recipe.batch_size, state["step"], varied).loader(workers)
    saved = time.monotonic()
    began = saved - state["seconds"]
    bar = tqdm(total=recipe.steps, initial=state["step"], desc=name, disable=None)
    stream = iter(batches) if state["step"] < recipe.steps else ()
    for step, batch in zip(range(state["step"], recipe.steps), stream, strict=False):
        _set_rate(optimizers, recipe, step)
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(device.type, torch.bfloat16):
            loss, parts = loss_of(model, places, batch)
        loss.backward()
        nn.utils.clip_grad_norm_([*model.parameters(), *places.parameters()], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        bar.update()
        state = {"step": step + 1, "seconds": time.monotonic() - began}
        if (step + 1) % LOG_EVERY == 0:
            line = {**state, **{k: round(v.item(), 4) for k, v in parts.items()}}
            bar.set_postfix({k: line[k] for k in parts})
            with (out / LOG).open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.monotonic() - saved > SAVE_EVERY or step + 1 == recipe.steps:
            saved = time.monotonic()
            _save(checkpoint, recipe, seed, state, model, places, optimizers)
    bar.close()
    return Trained(model.eval(), state["seconds"])


def _compile(model: PreTrainedModel) -> None:
    """Compile the layers one by one: equal layers then share one compilation."""
    for key, module in model.named_modules():
        if key.rpartition(".")[0].endswith((".layers", ".blocks")):
            module.compile()


def _take_tower(model: PreTrainedModel, clip: CLIPModel) -> None:
    """Initialise the vision tower with that of `clip`."""
    tower = model.model.vision_tower
    state = {k: v.float() for k, v in clip.vision_model.state_dict().items()}
    tower = getattr(tower, "vision_model", tower)  # older Transformers wrap it once more
    tower.load_state_dict(state)


def _optimizers(model: PreTrainedModel, places: Places, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    if not hasattr(torch.optim, "Muon"):
        raise UsageError(f"training needs torch 2.9 or newer for its Muon, this is {torch.__version__}")
    inside, rest = [], list(places.parameters())
    for key, weight in model.named_parameters():
        is_matrix = weight.ndim == 2 and ".weight" in key and _is_layer(key)
        (inside if is_matrix else rest).append(weight)
    decay = recipe.weight_decay
    optimizers = [
        torch.optim.Muon(inside, recipe.matrix_rate, decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=decay),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["highest"] = group["lr"]
    return optimizers


def _is_layer(key: str) -> bool:
    return ".layers." in key or ".blocks." in key or "projector" in key or "merger" in key


def _set_rate(optimizers: list, recipe: Recipe, step: int) -> None:
    """Linear warm-up, then constant, then linearly down to nothing over the last steps."""
    share = min(1, (step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.decay * recipe.steps))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["highest"] * share


def _save(path: Path, recipe: Recipe, seed: int, state: dict, model, places, optimizers: list) -> None:
    content = {
        "run": {**vars(recipe), "seed": seed},
        **state,
        "model": model.state_dict(),
        "places": places.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    saved = io.BytesIO()  # torch itself calls a full disk an invalid file name
    torch.save(content, saved)
    with replacing(path) as temporary:
        temporary.write_bytes(saved.getbuffer())


def _restore(path: Path, recipe: Recipe, seed: int, model, places, optimizers: list) -> dict:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["run"] != {**vars(recipe), "seed": seed}:
        raise UsageError(f"{path} is of another recipe or seed; remove it or choose another --out")
    model.load_state_dict(content["model"])
    places.load_state_dict(content["places"])
    for optimizer, saved in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return {"step": content["step"], "seconds": content["seconds"]}
