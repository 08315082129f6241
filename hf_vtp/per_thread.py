"""State of a call in progress: every thread that uses a model has its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class PerThread(threading.local):
    """Holds one object for each thread, `now`, made by `make` when the thread first asks.

    A copy and a pickle begin anew: what a call was about to do is no part of a model. The object is a plain
    one, since torch.compile loses what is set on a threading.local itself.
    """

    def __init__(self, make: Callable[[], object]):
        self.make = make
        self.now = make()

    def __reduce__(self) -> tuple:
        return type(self), (self.make,)
