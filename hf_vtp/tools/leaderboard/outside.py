"""Rows from outside the library, such as a method as its paper has it, where no hook reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ..bench.cli import UsageError

# pixel values [B, 3, H, W] to the pooled states [B, D] and the logits [B, C]
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Outside:
    """A method that runs a classifier itself.

    Attributes:
        name: of its row.
        version: changes with its code, so that results of other code are measured again.
        refuses: why it cannot run a model, "" where it can.
        at: (model, pixel values of one image, share of the FLOPs) to its forward, the share it has and how it
            was reached, in words.
    """

    name: str
    version: str
    refuses: Callable[[nn.Module], str]
    at: Callable[[nn.Module, Tensor, float], tuple[Forward, float, str]]


OUTSIDE: dict[str, Outside] = {}


def add_row(row: Outside) -> None:
    """Have the leaderboard show a row; raises UsageError for a name that is taken."""
    from ... import list_methods

    if row.name in list_methods():
        raise UsageError(f"the method {row.name!r} is one of the library's; choose another name")
    OUTSIDE[row.name] = row
