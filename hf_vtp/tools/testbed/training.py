"""The training loop of all models: seeded, resumable, with a progress bar."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
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
SAVE_EVERY, LOG_EVERY, CHECK_EVERY = 180.0, 50, 100  # seconds, steps, steps
CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"


@dataclass(frozen=True)
class Task:
    """What a model learns from.

    Attributes:
        new: makes the model and the head that only training has, after the seed was set.
        batches: from the size and number of the first batch to batches without end, dicts of tensors.
        loss: from model, head and batch to the loss and the parts of it that are logged.
        check: from the model to further numbers, computed every CHECK_EVERY steps and after the last.
        data: what a run shares with the one that it resumes, beside recipe and seed.
    """

    name: str
    new: Callable[[], tuple[PreTrainedModel, nn.Module]]
    batches: Callable[[int, int], Iterable[dict[str, Tensor]]]
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]]
    check: Callable[[PreTrainedModel], dict[str, Tensor]] | None = None
    data: dict[str, str] = field(default_factory=dict)


@dataclass
class Trained:
    """A model, and the seconds that its training took in all runs together."""

    model: PreTrainedModel
    seconds: float


def scenes(name: str, seed: int, tower: CLIPModel | None, workers: int) -> Task:
    """One of KINDS, on scenes that are drawn while it learns.

    Args:
        tower: for LLaVA the CLIP whose vision tower it begins with.
        workers: processes that draw scenes; 0 draws them in this one.
    """
    collate, loss, varied = KINDS[name]

    def new() -> tuple[PreTrainedModel, nn.Module]:
        model, places = NEW[name](), Places()
        if tower is not None:
            _take_tower(model, tower)
        return model, places

    def batches(size: int, start: int) -> Iterable[dict[str, Tensor]]:
        return Batches(collate, seed, size, start, varied).loader(workers)

    return Task(name, new, batches, loss)


def train(
    task: Task, recipe: Recipe, out: Path, device: torch.device, seed: int, compiled: bool = False
) -> Trained:
    """Train a model, resuming from the checkpoint in `out` if there is one."""
    torch.manual_seed(seed)
    model, head = task.new()
    model.set_attn_implementation("eager" if device.type == "cpu" else "sdpa")  # on a CPU eager is the faster
    for module in (model, head):
        module.to(device).train()
    if compiled:
        _compile(model)
    optimizers = _optimizers(model, head, recipe)
    state = {"step": 0, "seconds": 0.0}
    checkpoint, run = out / CHECKPOINT, {**vars(recipe), "seed": seed, **task.data}
    if checkpoint.exists():
        state = _restore(checkpoint, run, model, head, optimizers)
    saved = time.monotonic()
    began = saved - state["seconds"]
    bar = tqdm(total=recipe.steps, initial=state["step"], desc=task.name, disable=None)
    more = state["step"] < recipe.steps
    stream = iter(task.batches(recipe.batch_size, state["step"])) if more else ()
    learned = [weight for group in optimizers for part in group.param_groups for weight in part["params"]]
    for step, batch in zip(range(state["step"], recipe.steps), stream, strict=False):
        _set_rate(optimizers, recipe, step)
        batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss, parts = task.loss(model, head, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        bar.update()
        last = step + 1 == recipe.steps
        if task.check and (last or (step + 1) % CHECK_EVERY == 0):
            parts |= task.check(model)
        state = {"step": step + 1, "seconds": time.monotonic() - began}
        if last or (step + 1) % LOG_EVERY == 0:
            line = {**state, **{k: round(v.item(), 4) for k, v in parts.items()}}
            bar.set_postfix({k: line[k] for k in parts})
            with (out / LOG).open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.monotonic() - saved > SAVE_EVERY or last:
            saved = time.monotonic()
            _save(checkpoint, run, state, model, head, optimizers)
    bar.close()
    return Trained(model.eval(), state["seconds"])


def last_logged(out: Path) -> dict:
    """The last line of the log of a run that has ended."""
    return json.loads((out / LOG).read_text().splitlines()[-1])


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


def _optimizers(model: PreTrainedModel, head: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, if it has a rate, and AdamW for all else that learns."""
    if recipe.matrix_rate and not hasattr(torch.optim, "Muon"):
        raise UsageError(f"training needs torch 2.9 or newer for its Muon, this is {torch.__version__}")
    inside, rest = [], list(head.parameters())
    for key, weight in model.named_parameters():
        is_matrix = recipe.matrix_rate and weight.ndim == 2 and ".weight" in key and _is_layer(key)
        if weight.requires_grad:
            (inside if is_matrix else rest).append(weight)
    decay = recipe.weight_decay
    optimizers = [torch.optim.AdamW(rest, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=decay)]
    if inside:
        muon = torch.optim.Muon(inside, recipe.matrix_rate, decay, adjust_lr_fn="match_rms_adamw")
        optimizers.insert(0, muon)
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


def _save(path: Path, run: dict, state: dict, model, head, optimizers: list) -> None:
    content = {
        "run": run,
        **state,
        "model": model.state_dict(),
        "head": head.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    saved = io.BytesIO()  # torch itself calls a full disk an invalid file name
    torch.save(content, saved)
    with replacing(path) as temporary:
        temporary.write_bytes(saved.getbuffer())


def _restore(path: Path, run: dict, model, head, optimizers: list) -> dict:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["run"] != run:
        raise UsageError(f"{path} is of another recipe, seed or data; remove it or choose another --out")
    model.load_state_dict(content["model"])
    head.load_state_dict(content["head"])
    for optimizer, saved in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return {"step": content["step"], "seconds": content["seconds"]}
