"""VTPConfig: what to prune, where and how much, validated in one place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from .methods.table import METHODS, PARTS, check_parts
from .options import NONE, checked, documented, option
from .schedule import OUTPUT, stages
from .sharing import Shareable
from .version import __version__

NAME, NAME_OR_NONE = ("a name", (str,)), ("a name or None", (str, NONE))
KEEP_RATIO = 0.7
DICT, INT_OR_NONE = ("a dict of options", (dict,)), ("an int or None", (int, NONE))


@documented
@dataclass
class VTPConfig(Shareable):
    """How a model's image tokens are pruned.

    Args:
        {fields}

    Raises ValueError or TypeError with one sentence that says what is allowed.
    """

    keep_ratio: float | list[float] = option(
        KEEP_RATIO,
        "share of patch tokens kept at the end, in (0, 1]; or one share per layer, each of the original "
        "count. By default 0.7 leaves about 0.87 of a tower's FLOPs, 0.5 leaves 0.75, 0.3 leaves 0.62, 0.1 "
        "0.45. Methods whose count follows the image take it as the target of the mean, or not at "
        "all (list_methods() says which); at 1 nothing is dropped in any method.",
        "a number or a list of numbers",
        (float, list),
        of=float,
    )
    flops: float | None = option(
        None,
        "in place of keep_ratio: share of the tower's work that is left, in (0, 1], counted in tokens of its "
        "layers; the ratio that gives it is solved for. FLOPs are a little less, since those of attention "
        "fall with the square.",
        "a number or None",
        (float, NONE),
    )
    layer: int | list[int] | str | None = option(
        None,
        'encoder layer after which tokens leave (0 is the first); a list of them; "output" for after the '
        "tower (language-model families); None for the method's own place, or else five layers from a fifth "
        "to two thirds of the depth. Several layers share one ratio such that the more stay, the later the "
        "others leave, or as the method says.",
        "an int, a list of ints, 'output' or None",
        (int, str, NONE, list),
        of=int,
    )
    method: str = option("vtp", "a named bundle of scorer, selector and merger, see list_methods().", *NAME)
    scorer: str | None = option(None, "replaces the scorer of the method.", *NAME_OR_NONE)
    selector: str | None = option(None, "replaces the selector of the method.", *NAME_OR_NONE)
    merger: str | None = option(None, "replaces the merger of the method.", *NAME_OR_NONE)
    scorer_options: dict = option(dict, "keyword arguments of the scorer.", *DICT)
    selector_options: dict = option(dict, "keyword arguments of the selector.", *DICT)
    merger_options: dict = option(
        dict, "keyword arguments of the merger; each takes `lloyd`, rounds of k-means after it.", *DICT
    )
    positions: str = option(
        "original",
        '"original" keeps the positions of the full prompt for kept tokens, "compact" renumbers them.',
        *NAME,
        choices=("original", "compact"),
    )
    video_budget: str = option(
        "frame",
        '"frame" keeps a share of every frame group of a video, "clip" of the whole clip.',
        *NAME,
        choices=("frame", "clip"),
    )
    language_weights: bool = option(
        False,
        "a kept token counts in the language model's attention for as many as it absorbed (eager and SDPA).",
        "True or False",
        (bool,),
    )
    min_keep: int = option(1, "fewest tokens that a stage keeps of one image.", "an int", (int,))
    max_keep: int | None = option(None, "most tokens that a stage keeps of one image.", *INT_OR_NONE)
    base_model_name_or_path: str | None = option(
        None, "the model that the config was made for.", *NAME_OR_NONE
    )
    model_type: str | None = option(None, "its family; models of another are refused.", *NAME_OR_NONE)
    num_layers: int | None = option(
        None, "layers of its vision encoder; models with another number are refused.", *INT_OR_NONE
    )
    vtp_version: str = option(__version__, "the version of hf_vtp that made the config.", "a version", (str,))

    def __post_init__(self) -> None:
        for f in fields(self):  # its own: a list or a dict that the caller changes later is not this one
            setattr(self, f.name, copy.deepcopy(checked(f, getattr(self, f.name))))
        self._check_amounts()
        check_parts({part: self.part(part) for part in PARTS})

    def part(self, kind: str) -> tuple[str, dict]:
        """Name and options of the "scorer", "selector" or "merger": the method's own unless replaced."""
        method = METHODS[self.method]
        own, chosen = getattr(method, kind), getattr(self, kind)
        options = getattr(self, f"{kind}_options")
        if chosen is None or chosen == own:
            options = {**getattr(method, f"{kind}_options"), **options}
        return own if chosen is None else chosen, options

    @property
    def place(self) -> int | list[int] | str | Callable[[int], list[int]] | None:
        """The layer asked for; without one the method's own place, if it has one."""
        return METHODS[self.method].layers if self.layer is None else self.layer

    def for_language(self) -> VTPConfig:
        """The same for the last stage before a language model: with the method's own parts for that.

        A part that the caller named, or gave options for, stays.
        """
        return self._with(METHODS[self.method].for_language)

    def before_language(self) -> VTPConfig:
        """The same for the stages in front of that one."""
        return self._with(METHODS[self.method].before_language)

    def after_features(self) -> VTPConfig:
        """The same for tokens that no tower's layers are known of, which a language model reads."""
        return self._with(METHODS[self.method].after_features).for_language()

    def _with(self, own: Mapping[str, object]) -> VTPConfig:
        fields = {}
        for part in PARTS:
            options = f"{part}_options"
            if getattr(self, part) is None and not getattr(self, options):
                fields |= {name: own[name] for name in (part, options) if name in own}
        return self.replace(**fields)

    def replace(self, **overrides) -> VTPConfig:
        """A validated copy with some fields changed."""
        known = [f.name for f in fields(self)]
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise ValueError(f"unknown argument {unknown[0]!r}; choose from {sorted(known)}")
        return replace(self, **overrides)

    def stages(
        self, num_layers: int, what: str = "the encoder", has_output: bool = False
    ) -> list[tuple[int, float]]:
        """The same as hf_vtp.schedule.stages."""
        return stages(self, num_layers, what, has_output)

    def _check_amounts(self) -> None:
        if self.flops is not None:
            if not 0 < self.flops <= 1:
                raise ValueError(f"flops must lie in (0, 1], not {self.flops!r}")
            if self.keep_ratio != KEEP_RATIO:
                raise ValueError(
                    f"give flops or keep_ratio, not both: {self.flops!r} and {self.keep_ratio!r}"
                )
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
