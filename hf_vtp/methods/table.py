"""Named methods: a scorer, a selector and a merger under one name, with the options their source uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from ..pruning.registry import Entry, Table
from .layers import SCHEDULES
from .mergers import MERGERS
from .mergers.lloyd import lloyd
from .scorers import SCORERS
from .selectors import SELECTORS

STAND_INS = ("for_language", "before_language", "after_features")  # attributes of Method
PARTS = {"scorer": SCORERS, "selector": SELECTORS, "merger": MERGERS}
LLOYD = Entry(lloyd, "rounds of k-means, an option of every merger")


@dataclass(frozen=True, kw_only=True)
class Method:
    """A bundle of parts, and what list_methods() says of it.

    Attributes:
        scorer, selector, merger: names of parts, a page's own or any other that is registered.
        summary: what it does, in a few words.
        paper: where it is from, with its number.
        differs: one sentence on how it knowingly differs from its authors' released code, or "".
        layers: where tokens leave unless the user says: "output", or a function from the number of a tower's
            layers to those after which tokens leave; None for `default_layers`.
        schedule: how several stages share the reduction, a name in SCHEDULES; None for "geometric" after
            layers of the method's own, else "late".
        for_language: fields of VTPConfig with parts, and their options, that stand in at the last stage
            where a language model reads what stays.
        before_language: the same at the stages in front of that one.
        after_features: the same where no tower's layers are seen; then those of `for_language` come too.
        scorer_options, selector_options, merger_options: keyword arguments of the parts.
    """

    scorer: str
    selector: str
    merger: str
    summary: str = ""
    paper: str = ""
    differs: str = ""
    layers: Callable[[int], list[int]] | str | None = None
    schedule: str | None = None
    for_language: Mapping[str, object] = field(default_factory=dict)
    before_language: Mapping[str, object] = field(default_factory=dict)
    after_features: Mapping[str, object] = field(default_factory=dict)
    scorer_options: dict = field(default_factory=dict)
    selector_options: dict = field(default_factory=dict)
    merger_options: dict = field(default_factory=dict)

    @property
    def sharing(self) -> str:
        """The name of the schedule."""
        return self.schedule or ("geometric" if callable(self.layers) else "late")


METHODS: Table = Table("method")


def register_method(name: str, **row) -> Method:
    """Give a scorer, a selector and a merger a name for `apply_vtp(model, method=name)`.

    `row` holds the attributes of `Method`, of which `scorer`, `selector` and `merger` must be given. Raises
    ValueError for a name that is taken, a part that is not registered or an option it does not take, and
    TypeError for what has the wrong type.
    """
    known = [f.name for f in fields(Method)]
    for argument in row:
        if argument not in known:
            raise TypeError(f"unknown argument {argument!r} of a method; choose from {known}")
    for kind in PARTS:
        if kind not in row:
            raise TypeError(f"method {name!r} must name a {kind}; choose from {sorted(PARTS[kind])}")
    texts = {"the name": name, **{key: row.get(key, "") for key in (*PARTS, "summary", "paper", "differs")}}
    for what, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{what} of a method must be a string, not {text!r}")
    for key in (*STAND_INS, *(f"{kind}_options" for kind in PARTS)):
        if not isinstance(row.get(key, {}), Mapping):
            raise TypeError(f"{key} of method {name!r} must be a dict, not {row[key]!r}")
    method = Method(**row)
    if name in METHODS:
        raise ValueError(f"the method {name!r} exists already")
    check_method(name, method)
    METHODS[name] = method
    return method


def check_method(name: str, method: Method) -> None:
    """Raise ValueError or TypeError, with one sentence, unless a method can be used as it is."""
    if not (method.layers in (None, "output") or callable(method.layers)):
        raise TypeError(
            f"layers of method {name!r} must be a function from the number of layers to a list, 'output' or "
            f"None, not {method.layers!r}"
        )
    if method.sharing not in SCHEDULES:
        raise ValueError(f"unknown schedule {method.schedule!r}; choose from {list(SCHEDULES)}")
    check_parts({kind: (getattr(method, kind), getattr(method, f"{kind}_options")) for kind in PARTS})
    for name in STAND_INS:
        own, known = getattr(method, name), [*PARTS, *(f"{kind}_options" for kind in PARTS)]
        for key in own:
            if key not in known:
                raise ValueError(f"unknown part {key!r} in {name}; choose from {known}")
        parts = {kind: own.get(kind, getattr(method, kind)) for kind in PARTS}
        check_parts({kind: (part, own.get(f"{kind}_options", {})) for kind, part in parts.items()})


def check_parts(chosen: Mapping[str, tuple[str, dict]]) -> None:
    """Raise ValueError unless these parts, by kind with their options, exist, take those and go together."""
    for kind, (part, options) in chosen.items():
        if kind == "merger" and "lloyd" in options:
            LLOYD.check_options("lloyd", {"rounds": options["lloyd"]})
            options = {name: value for name, value in options.items() if name != "lloyd"}
        PARTS[kind][part].check_options(part, options)
    # a stage finds what was observed of earlier layers by layer alone
    observing = [(kind, part) for kind, (part, _) in chosen.items() if PARTS[kind][part].watches]
    if len(observing) > 1:
        (first, one), (second, other) = observing[:2]
        raise ValueError(
            f"{first} {one!r} and {second} {other!r} both observe earlier layers, which one part of a method "
            f"can do; choose another {first} or another {second}"
        )
