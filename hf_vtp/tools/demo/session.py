"""The session of a demo's server: its visitors share models, and one of them is served at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from ...apply import vtp_stats
from ...config import VTPConfig
from ...methods import list_methods
from ...visualize import draw_kept, layout
from ...visualize.contact import LETTERS, thumbnail
from ...visualize.geometry import NoGrid
from ..bench.cli import UsageError, first_sentence
from ..bench.decode import as_rgb
from ..bench.flops import count_flops, countable
from ..bench.timing import interleave, summary, synchronizer
from ..cases import prune
from ..models import Loaded
from ..shipped import open_model
from .answer import Task, make_task

MOST_METHODS = 6
MOST_MODELS = 3  # in memory at once
LONGEST_SIDE = 1280  # pixels of the picture that the model gets
PANEL = 448  # pixels of a picture that is shown
ROUNDS = 3
UNPRUNED = "unpruned"
METHODS = tuple(list_methods())
CANNOT = (ValueError, TypeError, RuntimeError, NotImplementedError, OSError)


@dataclass(frozen=True)
class Row:
    """One line of the table: the model as it is, or pruned by a method.

    Attributes:
        kept, tokens: the number of image tokens kept, and of all.
        flops: of the run to the first token, or of the image's embedding where nothing is written.
        milliseconds: of the same run, the median of ROUNDS.
    """

    method: str
    kept: int
    tokens: int
    flops: int
    milliseconds: float
    answer: str


@dataclass(frozen=True)
class Shown:
    """The result for a visitor; `pictures` has one per method, `sheet` all of them with their names."""

    rows: list[Row]
    pictures: list[Image.Image]
    sheet: Image.Image
    trained: bool


class Session:
    """Models that many threads may ask at once.

    `offered` has the names that visitors may choose, and the model of each; None lets them name any model.
    `testbed` is the folder of the trained models, see `shipped_folder`.
    """

    def __init__(
        self,
        device: str | torch.device = "cpu",
        offered: Mapping[str, str] | None = None,
        testbed: str | Path | None = None,
    ):
        self.device, self.offered, self.testbed = torch.device(device), offered, testbed
        # one for all: a model is pruned, run and read in one go, without another visitor's run in between
        self.lock = threading.Lock()
        self.models: OrderedDict[str, tuple[Loaded, bool]] = OrderedDict()

    def ask(
        self,
        picture: Image.Image,
        question: str,
        model: str,
        methods: Sequence[str],
        keep_ratio: float,
        heat_map: bool = False,
    ) -> Shown:
        """The answer of a model as it is and pruned by each method; raises UsageError, one sentence."""
        if not methods or len(methods) > MOST_METHODS:
            raise UsageError(f"choose 1 to {MOST_METHODS} methods, not {len(methods)}")
        try:
            configs = {method: VTPConfig(method=method, keep_ratio=keep_ratio) for method in methods}
        except (ValueError, TypeError) as error:
            raise UsageError(first_sentence(error)) from None
        try:
            picture = as_rgb(picture)
        except ValueError as error:
            raise UsageError(first_sentence(error)) from None
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        with self.lock:
            loaded, trained = self.find(model)
            task = make_task(loaded, picture, question)
            try:
                return self._compare(loaded, trained, task, picture, configs, heat_map)
            except torch.OutOfMemoryError:
                raise UsageError("the device is out of memory; give a smaller picture or model") from None
            except CANNOT as error:
                raise UsageError(f"this cannot be done: {first_sentence(error)}") from None
            finally:
                prune(loaded.model, None)

    def _compare(self, loaded: Loaded, trained: bool, task: Task, picture, configs, heat_map) -> Shown:
        model, cases = loaded.model, {UNPRUNED: None, **configs}
        flops, answers, stats, pictures = {}, {}, {}, []
        for name, config in cases.items():
            with countable(prune(model, config)):
                flops[name] = count_flops(task.first)
            answers[name] = task.answer()
            if config is not None:
                stats[name] = vtp_stats(model)
                kwargs = dict(stage=0 if heat_map else -1, heat_map=heat_map, labels=False)
                try:
                    drawn = draw_kept(picture, stats[name], loaded.processor, **kwargs)
                except NoGrid as error:
                    drawn = layout.titled(picture, str(error), LETTERS)
                pictures.append(thumbnail(drawn, PANEL))
        calls = {name: partial(_prepare, model, config, task) for name, config in cases.items()}
        times = interleave(calls, rounds=ROUNDS, warmup=1, synchronize=synchronizer(self.device))
        tokens = sum(next(iter(stats.values())).num_tokens)
        rows = []
        for name in cases:
            kept = sum(stats[name].num_kept) if name in stats else tokens
            milliseconds = summary(times[name])["latency_p50_ms"]
            rows.append(Row(name, kept, tokens, flops[name], milliseconds, answers[name]))
        return Shown(rows, pictures, sheet(rows[1:], pictures), trained)

    def find(self, name: str) -> tuple[Loaded, bool]:
        """The model that a visitor named; raises UsageError, without folders' names where others visit."""
        if self.offered is None:
            return self.open(name)
        if not isinstance(name, str) or name not in self.offered:
            raise UsageError(f"this page has no such model; choose from {', '.join(self.offered)}")
        try:
            return self.open(self.offered[name])
        except UsageError:
            raise UsageError(f"{name} cannot be opened at the moment; choose another model") from None

    def open(self, name: str) -> tuple[Loaded, bool]:
        """The model of that name and whether it is trained; raises UsageError for one that cannot be had."""
        if not isinstance(name, str) or not name.strip():
            raise UsageError("no model is named; choose one of the list, or a folder or a name on the Hub")
        name = name.strip()
        if name not in self.models:
            self.models[name] = open_model(name, str(self.device), self.testbed)
            if len(self.models) > MOST_MODELS:
                self.models.popitem(last=False)
        self.models.move_to_end(name)
        return self.models[name]


def sheet(rows: list[Row], pictures: list[Image.Image]) -> Image.Image:
    """All pictures, each under its method's name, for the download."""
    titles = [f"{row.method}: {row.kept} of {row.tokens} tokens" for row in rows]
    panels = [layout.titled(picture, title, 16) for picture, title in zip(pictures, titles, strict=True)]
    return layout.framed(layout.wrapped(panels, 3))


def _prepare(model, config: VTPConfig | None, task: Task) -> Callable[[], object]:
    prune(model, config)
    return task.first
