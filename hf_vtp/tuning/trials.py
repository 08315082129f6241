"""A model on which configs are tried: their quality on images, their FLOPs and their speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from ..apply import apply_vtp, take_off
from ..config import VTPConfig
from ..tools.bench.flops import count_flops, countable
from ..tools.bench.timing import interleave, summary, synchronizer
from .tasks import Answers, Embeddings, on_device

WARMUP = 2
Task = Embeddings | Answers


class Lab:
    """Changes how the model is pruned and does not put it back: that is for the caller, see `unpruned`.

    Attributes:
        num: images or prompts by part, "search" and "check"; no image is in both.
        bar: shows what is going on, a step for each batch.
    """

    def __init__(self, model: nn.Module, task: Task, parts: dict[str, list[dict]], bar: tqdm, seed: int):
        self.model, self.task, self.parts, self.bar, self.seed = model, task, parts, bar, seed
        bar.set_description("unpruned")
        self.switch(None)
        with torch.no_grad():
            self.whole = {part: self._run(batches) for part, batches in parts.items()}
        self.num = {part: sum(map(len, found)) for part, found in self.whole.items()}

    def switch(self, config: VTPConfig | None) -> None:
        """Prune the model so; None is no pruning."""
        take_off(self.model) if config is None else apply_vtp(self.model, config)

    def values(self, config: VTPConfig, part: str) -> list[float]:
        """The quality of every image of a part, 1 where nothing changed."""
        with torch.no_grad():
            self.switch(config)
            found = self._run(self.parts[part])
        pairs = zip(found, self.whole[part], strict=True)
        return [value for some, whole in pairs for value in self.task.compare(some, whole)]

    def flops(self, config: VTPConfig | None) -> int:
        """FLOPs of the first batch; None is the unpruned model."""
        self.switch(config)
        with torch.no_grad(), countable(self.model):
            return count_flops(partial(self.task.first, self._first()))

    def per_second(self, configs: Sequence[VTPConfig | None], rounds: int) -> list[float]:
        """Images or prompts a second of each, the first batch taken in turns; medians."""
        batch = self._first()
        calls = {i: partial(self._ready, config, batch) for i, config in enumerate(configs)}
        told = {"rounds": rounds, "warmup": WARMUP, "seed": self.seed, "progress": self.bar.update}
        with torch.no_grad():
            seconds = interleave(calls, synchronize=synchronizer(self.model.device), **told)
        size = len(self.whole["search"][0])
        return [size * 1e3 / summary(seconds[i])["latency_p50_ms"] for i in calls]

    def _ready(self, config: VTPConfig | None, batch: dict):
        self.switch(config)
        return partial(self.task.run, batch)

    def _first(self) -> dict:
        return on_device(self.model, self.parts["search"][0])

    def _run(self, batches: list[dict]) -> list[Sequence]:
        found = []
        for batch in batches:
            found.append(self.task.run(on_device(self.model, batch)))
            self.bar.update()
        return found


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards every module is in the mode it was in."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was
