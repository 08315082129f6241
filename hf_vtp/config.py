"""VTPConfig: what to prune, where and how much, validated in one place."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields, replace

from .methods.mergers.lloyd import lloyd
from .methods.table import METHODS, PARTS
from .pruning.registry import Entry
from .sharing import Shareable
from .version import __version__

OUTPUT = "output"
POSITIONS = ("original", "compact")
VIDEO_BUDGETS = ("frame", "clip")
LLOYD = Entry(lloyd, "rounds of k-means, an option of every merger")


@dataclass
class VTPConfig(Shareable):
    """How a model's image tokens are pruned.

    Args:
        keep_ratio: share of patch tokens left at the end, in (0, 1]; or one share per layer listed, each of
        the
            original count. Methods whose count follows the image take it as the target of the mean, or not at
            all (`list_methods()` says which); at 1 nothing leaves in any method.
        layer: encoder layer after which tokens leave (0 is the first); a list of them; "output" for after the
            tower (language-model families); None for the method's own place, or the family's default. A list
            with one ratio spreads the reduction geometrically, or as the method says.
        method: a named bundle of scorer, selector and merger, see `list_methods()`.
        scorer, selector, merger: replace that part of the bundle.
        scorer_options, selector_options, merger_options: keyword arguments of the parts; every merger takes
            `lloyd`, rounds of k-means after it.
        positions: "original" leaves kept tokens the positions of the full prompt, "compact" renumbers them.
        video_budget: "frame" leaves every frame group of a video its share, "clip" shares out over the whole
            clip.
        min_keep, max_keep: bounds of the number of tokens a stage leaves of one image.
        base_model_name_or_path, model_type, num_layers: the model the config was made for, its family and the
            layers of its vision encoder; apply_vtp refuses a model of another family or number of layers.
        vtp_version: the version of hf_vtp that made it.

    Raises ValueError or TypeError with one sentence that says what is allowed.
    """

    keep_ratio: float | list[float] = 0.7
    layer: int | list[int] | str | None = None
    method: str = "vtp"
    scorer: str | None = None
    selector: str | None = None
    merger: str | None = None
    scorer_options: dict = field(default_factory=dict)
    selector_options: dict = field(default_factory=dict)
    merger_options: dict = field(default_factory=dict)
    positions: str = "original"
    video_budget: str = "frame"
    min_keep: int = 1
    max_keep: int | None = None
    base_model_name_or_path: str | None = None
    model_type: str | None = None
    num_layers: int | None = None
    vtp_version: str = __version__

    def __post_init__(self) -> None:
        self._check_types()
        self._check_amounts()
        for name, allowed in (("positions", POSITIONS), ("video_budget", VIDEO_BUDGETS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose from {list(allowed)}")
        for part, table in PARTS.items():
            name, options = self.part(part)
            if part == "merger" and "lloyd" in options:
                LLOYD.check_options("lloyd", {"rounds": options["lloyd"]})
                options = {name: value for name, value in options.items() if name != "lloyd"}
            table[name].check_options(name, options)
        self._check_observers()
        for f in fields(self):  # its own: a list or a dict that the caller changes later is not this one
            setattr(self, f.name, copy.deepcopy(getattr(self, f.name)))

    def part(self, kind: str) -> tuple[str, dict]:
        """Name and options of the "scorer", "selector" or "merger": the method's own unless replaced."""
        method = METHODS[self.method]
        own, chosen = getattr(method, kind), getattr(self, kind)
        options = getattr(self, f"{kind}_options")
        if chosen is None or chosen == own:
            options = {**getattr(method, f"{kind}_options"), **options}
        return own if chosen is None else chosen, options

    def after_features(self) -> VTPConfig:
        """The same for tokens that no tower's layers are known of: the method's own parts for that.

        A part that the caller named, or gave options for, stays.
        """
        own = METHODS[self.method].after_features
        return self.replace(
            **{
                part: name
                for part, name in own.items()
                if getattr(self, part) is None and not getattr(self, f"{part}_options")
            }
        )

    def replace(self, **overrides) -> VTPConfig:
        """A validated copy with some fields changed."""
        known = [f.name for f in fields(self)]
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise ValueError(f"unknown argument {unknown[0]!r}; choose from {sorted(known)}")
        return replace(self, **overrides)

    def stages(
        self,
        num_layers: int,
        default_layer: int,
        what: str = "the encoder",
        has_output: bool = False,
    ) -> list[tuple[int, float]]:
        """(layer, share of the original count left after it) for every stage, layers ascending.

        `num_layers` is the number of layers after which pruning has an effect; "output" is the last of them.
        Without a layer the method's own place counts, where it has one that the model has (`has_output`:
        whether anything follows the tower); else the family's `default_layer`.
        """
        method = METHODS[self.method]
        layer = self.layer
        if layer is None:
            layer = default_layer
            if callable(method.layers):
                layer = method.layers(num_layers)
            elif method.layers == OUTPUT and has_output:
                layer = OUTPUT
        layer = num_layers - 1 if layer == OUTPUT else layer
        layers = [layer] if isinstance(layer, int) else list(layer)
        outside = [i for i in layers if not 0 <= i < num_layers]
        if outside:
            raise ValueError(f"layer {outside[0]} is beyond {what}; choose from 0 to {num_layers - 1}")
        ratios = self.keep_ratio
        if not isinstance(ratios, list):
            done = [(i + 1) / len(layers) for i in range(len(layers) - 1)]
            spread = {"geometric": lambda part: ratios**part, "linear": lambda part: 1 - (1 - ratios) * part}
            ratios = [spread[method.schedule](part) for part in done] + [ratios]
        if len(ratios) != len(layers):
            raise ValueError(
                f"keep_ratio has {len(ratios)} shares for {len(layers)} layers; give one per layer"
            )
        return list(zip(layers, ratios, strict=True))

    def _check_types(self) -> None:
        for name, kinds, allowed in FIELD_TYPES:
            value = getattr(self, name)
            if isinstance(value, tuple):
                value = list(value)
                setattr(self, name, value)
            listed = isinstance(value, list) and list in kinds
            if not all(_is(v, (LISTED[name],)) for v in value) if listed else not _is(value, kinds):
                raise TypeError(f"{name} must be {allowed}, not {value!r}")

    def _check_observers(self) -> None:
        """A stage finds what was observed of earlier layers by layer alone, so one part at most observes."""
        names = {part: self.part(part)[0] for part in PARTS}
        observing = [part for part, name in names.items() if PARTS[part][name].watches]
        if len(observing) > 1:
            first, second = observing[:2]
            raise ValueError(
                f"{first} {names[first]!r} and {second} {names[second]!r} both observe earlier layers, which "
                f"one part of a method can do; choose another {first} or another {second}"
            )

    def _check_amounts(self) -> None:
        ratios = self.keep_ratio if isinstance(self.keep_ratio, list) else [self.keep_ratio]
        if not ratios or not all(0 < r <= 1 for r in ratios):
            raise ValueError(f"keep_ratio must lie in (0, 1], not {self.keep_ratio!r}")
        if any(a < b for a, b in zip(ratios, ratios[1:], strict=False)):
            raise ValueError(f"keep_ratio must not rise from layer to layer, as {self.keep_ratio!r} does")
        if isinstance(self.layer, str) and self.layer != OUTPUT:
            raise ValueError(f"layer must be an int, a list of ints, {OUTPUT!r} or None, not {self.layer!r}")
        if isinstance(self.layer, list):
            rising = all(a < b for a, b in zip(self.layer, self.layer[1:], strict=False))
            if not self.layer or not rising:
                raise ValueError(
                    f"layer must list at least one layer, each once and ascending, not {self.layer!r}"
                )
        if self.min_keep < 1:
            raise ValueError(f"min_keep must be at least 1, not {self.min_keep!r}")
        if self.max_keep is not None and self.max_keep < self.min_keep:
            raise ValueError(f"max_keep must be at least min_keep = {self.min_keep}, not {self.max_keep!r}")


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds or (type(value) is int and float in kinds)  # True is an int to isinstance


NONE = type(None)
NAMES = (*PARTS, "base_model_name_or_path", "model_type")  # None where there is none
LISTED = {"keep_ratio": float, "layer": int}  # what a list of these holds
FIELD_TYPES = (
    ("keep_ratio", (float, list), "a number or a list of numbers"),
    ("layer", (int, str, NONE, list), "an int, a list of ints, 'output' or None"),
    ("method", (str,), "a name"),
    *((name, (str, NONE), "a name or None") for name in NAMES),
    *((f"{name}_options", (dict,), "a dict of options") for name in PARTS),
    ("positions", (str,), "a name"),
    ("video_budget", (str,), "a name"),
    ("min_keep", (int,), "an int"),
    *((name, (int, NONE), "an int or None") for name in ("max_keep", "num_layers")),
    ("vtp_version", (str,), "a version"),
)
