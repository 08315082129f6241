"""One case of a golden file as the library sees it, and comparisons that yield what is not equal."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from references.released.files import read, read_inputs, read_outputs
from torch.nn.functional import gelu

from hf_vtp import VisionTokens, VTPConfig
from hf_vtp.methods.table import METHODS
from hf_vtp.pruning.stage import Outcome, prune

EXACT = 1e-4


@dataclass
class Golden:
    """Inputs x and outputs `out` of one case, all images together; `case` is what `meta` says of it."""

    method: str  # the library's
    x: dict[str, torch.Tensor]
    case: dict
    out: dict[str, torch.Tensor]
    where: str

    def config(self, **options) -> VTPConfig:
        METHODS[self.method]  # an unknown one raises a ValueError
        return VTPConfig(method=self.method, **options)

    def tokens(self, query="q", key="k", value="v", prefix=1, text=slice(None), **changes) -> VisionTokens:
        """The 64 tokens of each image at a stage; `query`, `key`, `value` name the arrays of its layer.

        `prefix` 0 leaves [CLS] out; `text` takes vectors of the text.
        """
        parts = [self.x.get(name) for name in (query, key, value)]
        if "scale_q" in self.case:
            parts[0] = parts[0] * self.case["scale_q"]
        if parts[0] is None and parts[1] is not None:
            parts[0] = torch.zeros_like(parts[1])  # of a method that reads keys alone
        parts = [None if part is None else part[:, :, 1 - prefix :] for part in parts]
        text = self.x["text"][:, text] if "text" in self.x else None
        valid = None if text is None else torch.ones(text.shape[:2], dtype=torch.bool)
        keep = self.case.get("num_keep", 32)
        fields = {
            "hidden_states": self.x["hidden"][:, 1:],
            "num_keep": keep,
            "target": keep,
            "share": keep / 64,
            "grid": (1, 8, 8),
            "num_prefix_tokens": prefix,
            "layer": 22,
            "text": text,
            "text_valid": valid,
            "project": self.project,
            **dict(zip(("full_query", "full_key", "full_value"), parts, strict=True)),
        }
        return VisionTokens(**{**fields, **changes})

    def project(self, content: torch.Tensor) -> torch.Tensor:
        """Into the language model's space, [.., 32] to [.., 40]."""
        return gelu(content @ self.x["w1"]) @ self.x["w2"]

    def other(self, **changes) -> VisionTokens:
        """The same tokens with queries, keys and values of the other layer."""
        return self.tokens("q_other", "k_other", "v_other", **changes)

    def prune(self, tokens: VisionTokens, **options) -> Outcome:
        return prune(tokens, self.config(**options))


def cases_of(method: str, file: str) -> Iterator[Golden]:
    """Every case of every seed of a golden file."""
    meta, arrays = read(file)
    for seed in meta["seeds"]:
        x = {name: torch.tensor(a).float() for name, a in read_inputs(arrays, seed).items()}
        for c, case in enumerate(meta["cases"]):
            out = {name: torch.tensor(a) for name, a in read_outputs(arrays, seed, c).items()}
            yield Golden(method, x, case, out, f"seed {seed}, case {c}")


Differences = Iterator[str]


@dataclass(frozen=True)
class Check:
    """Compares the library with some arrays of a golden file: `run(golden)` yields one line a difference."""

    arrays: tuple[str, ...]
    run: Callable[[Golden], Differences]


@dataclass(frozen=True)
class Row:
    """What the library's method is to reach of a golden file.

    `shown`: arrays that are there to show another reading, by name, and which. `beyond`: how a method that
    equals the arrays compared still knowingly differs from the released code; "" if it does not.
    """

    file: str
    checks: tuple[Check, ...]
    shown: dict[str, str] = field(default_factory=dict)
    beyond: str = ""


def places(row: torch.Tensor) -> list[int]:
    """Of one image, without padding."""
    return [int(i) for i in row if i >= 0]


def differing_sets(keep: torch.Tensor, golden: torch.Tensor, what: str) -> Differences:
    for b, (own, their) in enumerate(zip(keep, golden, strict=True)):
        own, their = set(places(own)), set(places(their))
        if own != their:
            yield f"{what}, image {b}: {len(own & their)} of {len(their)} kept places are the same"


def differing_values(own: torch.Tensor, golden: torch.Tensor, what: str) -> Differences:
    if own.shape != golden.shape:
        yield f"{what}: shape {tuple(own.shape)}, not {tuple(golden.shape)}"
    elif not torch.allclose(own.double(), golden.double(), atol=EXACT, rtol=EXACT):
        yield f"{what}: values differ by up to {(own.double() - golden.double()).abs().max():.2g}"


def keeps(array: str, config: dict | None = None, tokens=Golden.tokens, **changes) -> Check:
    """The kept set is the golden one."""

    def run(golden: Golden) -> Differences:
        keep = golden.prune(tokens(golden, **changes), **(config or {})).keep
        yield from differing_sets(keep, golden.out[array], array)

    return Check((array,), run)


def keeps_values(
    rows: Callable[[dict, int], list[int]],
    arrays: tuple[str, ...],
    values: str,
    tokens=Golden.tokens,
    **changes,
) -> Check:
    """Kept places and what stands there; `rows(out, b)` are the places of the golden rows of an image.

    One golden row more belongs to a token of its own, which the library has at a place that is not kept.
    """

    def run(golden: Golden) -> Differences:
        outcome = golden.prune(tokens(golden, **changes))
        for b, keep in enumerate(outcome.keep):
            own, their, states = places(keep), rows(golden.out, b), golden.out[values][b]
            more = [place for place in own if place not in their]
            extra = len(states) > len(their) and bool(states[len(their)].any())
            if set(their) - set(own) or len(more) != extra:
                same = len(set(own) & set(their))
                yield f"{values}, image {b}: {same} of {len(their)} kept places are the same, of {len(own)}"
                continue
            index = [own.index(place) for place in their + more]
            made = outcome.hidden_states[b][index]
            yield from differing_values(made, states[: len(index)], f"{values}, image {b}")

    return Check((*arrays, values), run)


def in_order(array: str) -> Callable[[dict, int], list[int]]:
    """The places of an array such as `keep_order`."""
    return lambda out, b: places(out[array][b])
