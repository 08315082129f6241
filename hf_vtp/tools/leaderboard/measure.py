"""The loop that measures: several rows of one model in a pass over its items, saved when it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from tqdm import tqdm

from ...environment import environment
from ..bench import cli
from .answers import Answers
from .contestants import version_of
from .entries import Entry, Point
from .pictures import Pictures
from .scores import digest, pack
from .store import Store
from .subjects import NotRun, Run, Scores, Subject, weights_digest

UNPRUNED = "unpruned"
SUBJECTS = {"classifier": Pictures, "clip": Pictures, "vlm": Answers}
IN_A_PASS = 12  # runs: what an interruption loses at most, and how often images are decoded


@dataclass
class Cell:
    """A row at a point, which is measured in one run or in one for each seed."""

    row: str
    point: Point | None  # None for the unpruned model
    identity: str
    runs: list[Run | None]
    scores: list[Scores]

    @property
    def key(self) -> str:
        return "-" if self.point is None else self.point.key


class Measurement:
    """Measures the cells of one model that are not on disk, or were measured with other code or items."""

    def __init__(self, entry: Entry, subject: Subject, model: str, store: Store | None, seeds: int):
        self.entry, self.subject, self.store, self.seeds = entry, subject, store, seeds
        self.weights = weights_digest(model)
        alone = subject.model.device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.process_time if alone else time.perf_counter  # whatever else the machine does
        self.preparing = self.running = 0.0  # seconds
        self.measured = self.not_run = 0  # cells

    def identity(self, row: str, point: Point | None) -> str:
        """What two runs must share for the result of one to stand for the other's."""
        own = [] if row == UNPRUNED else [version_of(row), self.seeds, self.subject.default_layers]
        items = [self.subject.num_items, self.subject.items_digest, self.entry.metrics]
        return digest([row, point and point.key, own, items, self.weights])

    def pending(self, rows: Sequence[str]) -> list[tuple[str, Point | None, str]]:
        """(row, point, identity) of what is to be measured."""
        cells: list[tuple[str, Point | None]] = [(UNPRUNED, None)]
        cells += [(row, point) for row in rows for point in self.entry.all_points]
        stored = {row: self.store.read(self.entry.name, row) if self.store else {} for row, _ in cells}
        todo = []
        for row, point in cells:
            identity = self.identity(row, point)
            key = "-" if point is None else point.key
            if stored[row].get(key, {}).get("identity") != identity:
                todo.append((row, point, identity))
        return todo

    def measure(self, todo: Sequence[tuple[str, Point | None, str]], bar: tqdm) -> None:
        for cells in self._passes(todo, bar):
            started = self.clock()
            for batch in self.subject.batches():
                for cell in list(cells):
                    try:
                        for run, scores in zip(cell.runs, cell.scores, strict=True):
                            self.subject.score(run, batch, scores)
                    except NotRun as reason:
                        cells.remove(cell)
                        self._save(cell, {"not_run": str(reason)})
                bar.update(len(cells) * _size(batch))
            for cell in cells:
                for scores in cell.scores:
                    self.subject.finish(scores)
            seconds = self.clock() - started
            self.running += seconds
            self.measured += len(cells)
            for cell in cells:
                self._save(cell, self._result(cell, seconds / max(1, sum(len(c.runs) for c in cells))))

    def _passes(self, todo: Sequence, bar: tqdm) -> Iterator[list[Cell]]:
        cells: list[Cell] = []
        for row, point, identity in todo:
            started = self.clock()
            try:
                runs = [None] if point is None else self.subject.runs(row, point, self.seeds)
                self.preparing += self.clock() - started
            except NotRun as reason:
                self._save(Cell(row, point, identity, [], []), {"not_run": str(reason)})
                bar.update(self.subject.num_items)
                continue
            cells.append(Cell(row, point, identity, runs, [Scores() for _ in runs]))
            if sum(len(cell.runs) for cell in cells) >= IN_A_PASS:
                yield cells
                cells = []
        if cells:
            yield cells

    def _result(self, cell: Cell, seconds: float) -> dict:
        items = {n: np.mean([s.items[n] for s in cell.scores], axis=0) for n in cell.scores[0].items}
        first = cell.runs[0] or Run(share=1.0)
        kept = [n for scores in cell.scores for n in scores.kept]
        return {
            "values": {name: round(float(values.mean()), 6) for name, values in items.items()},
            "scores": {name: pack(values.tolist()) for name, values in items.items()},
            "flop_share": first.share and round(first.share, 4),
            "how": first.how,
            "kept": round(fmean(kept), 2) if kept else None,
            "total": round(fmean(n for scores in cell.scores for n in scores.total), 2),
            "num_runs": len(cell.runs),
            "seconds_a_run": round(seconds, 2),
        }

    def _save(self, cell: Cell, found: dict) -> None:
        self.not_run += "not_run" in found
        if self.store is None:
            return
        items = {"count": self.subject.num_items, "digest": self.subject.items_digest}
        about = {"identity": cell.identity, "items": items, "weights": self.weights}
        made = {"command": cli.command(), "seeds": self.seeds, "machine": machine(self.subject)}
        self.store.add(self.entry.name, cell.row, {cell.key: {**about, **found, **made}})


def machine(subject: Subject) -> str:
    """Versions, machine, dtype and threads, in one line."""
    on = environment(subject.model.device)
    versions = ", ".join(f"{name} {on[name]}" for name in ("hf_vtp", "torch", "transformers", "python"))
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    return f"{versions}; {on['device_name']} ({on['device']}), float32, {threads}"


def load_subject(entry: Entry, model: str, data: str, num_items: int, device: torch.device) -> Subject:
    return SUBJECTS[entry.kind](entry, model, data, num_items, device)


def _size(batch: object) -> int:
    return len(batch.images)
