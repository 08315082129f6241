"""Measurements of configs on a model: quality on images, FLOPs and speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from ..config import VTPConfig
from ..tools.bench.flops import count_flops, countable
from ..tools.bench.timing import interleave, summary, synchronizer
from ..tools.cases import prune
from ..tools.prompts import on_device
from .tasks import Answers, Embeddings

WARMUP = 2
Task = Embeddings | Answers


class Measurements:
    """Prunes a model to measure it, and does not restore it: that is for the caller, see `unpruned`.

    Attributes:
        num: the number of images or prompts by part, "search" and "check"; no image is in both.
        bar: shows the progress, a step for each batch.
    """

    def __init__(self, model: nn.Module, task: Task, parts: dict[str, list[dict]], bar: tqdm, seed: int):
        self.model, self.task, self.parts, self.bar, self.seed = model, task, parts, bar, seed
        bar.set_description("unpruned")
        prune(model, None)
        with torch.no_grad():
            self.unpruned = {part: self._run(batches) for part, batches in parts.items()}
        self.num = {part: sum(map(len, results)) for part, results in self.unpruned.items()}

    def values(self, config: VTPConfig, part: str) -> list[float]:
        """The quality of every image of a part, 1 where nothing changed."""
        with torch.no_grad():
            prune(self.model, config)
            results = self._run(self.parts[part])
        pairs = zip(results, self.unpruned[part], strict=True)
        return [value for pruned, unpruned in pairs for value in self.task.compare(pruned, unpruned)]

    def flops(self, config: VTPConfig | None) -> int:
        """FLOPs of the first batch; None is the unpruned model."""
        with torch.no_grad(), countable(prune(self.model, config)):
            return count_flops(partial(self.task.first, self._first_batch()))

    def per_second(self, configs: Sequence[VTPConfig | None], rounds: int) -> list[float]:
        """Images or prompts a second of each config: medians over rounds in which the first batch runs."""
        batch = self._first_batch()
        calls = {i: partial(self._prepare, config, batch) for i, config in enumerate(configs)}
        kwargs = {"rounds": rounds, "warmup": WARMUP, "seed": self.seed, "progress": self.bar.update}
        with torch.no_grad():
            seconds = interleave(calls, synchronize=synchronizer(self.model.device), **kwargs)
        size = len(self.unpruned["search"][0])
        return [size * 1e3 / summary(seconds[i])["latency_p50_ms"] for i in calls]

    def _prepare(self, config: VTPConfig | None, batch: dict):
        prune(self.model, config)
        return partial(self.task.run, batch)

    def _first_batch(self) -> dict:
        return on_device(self.model, self.parts["search"][0])

    def _run(self, batches: list[dict]) -> list[Sequence]:
        results = []
        for batch in batches:
            results.append(self.task.run(on_device(self.model, batch)))
            self.bar.update()
        return results


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Run without dropout; afterwards every module is in its former mode."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
