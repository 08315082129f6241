"""One process or several, through accelerate: which batches are whose, and all results in their order.

Each process takes whole batches, so that a batch holds the same items however many processes there are: the
last digits of a matrix product depend on its size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

from ..bench import cli

T = TypeVar("T")
PATIENCE = timedelta(days=1)  # the others wait while the main process times its batches
STARTED_ONE = (
    "accelerate was asked for several processes and started one, as it does with --cpu; write accelerate "
    "launch --multi_gpu --num_processes N, which is right on CPUs too"
)


class Processes:
    """The processes of this run; `device` is this one's.

    Raises UsageError, as cli.device does, for a device that is not there.
    """

    def __init__(self, device: str | None = None):
        chosen = cli.device(device)
        self.state = PartialState(cpu=chosen.type == "cpu", timeout=PATIENCE)
        several = self.state.num_processes > 1
        self.device = self.state.device if several and chosen.type != "cpu" else chosen
        self.num, self.index, self.main = (
            self.state.num_processes,
            self.state.process_index,
            self.state.is_main_process,
        )
        launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ
        if launched and not several and "LOCAL_RANK" not in os.environ:
            print(STARTED_ONE, file=sys.stderr)

    def mine(self, items: Iterable[T], size: int) -> Iterator[tuple[int, list[T]]]:
        """(number, items) of the batches that this process takes; the last one may be smaller."""
        for number, batch in enumerate(batches(items, size)):
            if number % self.num == self.index:
                yield number, batch

    def gather(self, own: list[T], key: Callable[[T], object]) -> list[T]:
        """The results of all processes, in the order of `key`, so that no sum depends on which was first."""
        return sorted(gather_object(own) if self.num > 1 else own, key=key)

    def agree(self, call: Callable[[], T]) -> T:
        """`call()` in every process; where one raises UsageError all of them end, so that none waits."""
        try:
            result, problem = call(), None
        except cli.UsageError as error:
            result, problem = None, str(error)
        problems = [p for p in (gather_object([problem]) if self.num > 1 else [problem]) if p is not None]
        if problems and not self.main:
            raise SystemExit(2)  # the main process says why
        if problems:
            raise cli.UsageError(problems[0])
        return result

    def on_main(self, call: Callable[[], T]) -> T | None:
        """`call()` in the main process only; None in the others, which wait for it."""
        return self.agree(lambda: call() if self.main else None)

    def wait(self) -> None:
        self.state.wait_for_everyone()

    def close(self) -> None:
        """Leave the group, whatever became of the other processes."""
        if self.num > 1:
            self.state.destroy_process_group()


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch
