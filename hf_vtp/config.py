"""VTPConfig: what to prune, where and how much, validated in one place."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace

from .methods.table import METHODS, PARTS, check_parts
from .options import NONE, checked, documented, option
from .schedule import OUTPUT, stages
from .sharing import Shareable
from .version import __version__

NAME, NAME_OR_NONE = ("a name", (str,)), ("a name or None", (str, NONE))
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
        0.7,
        "share of patch tokens kept at the end, in (0, 1]; or one share per layer listed, each of the "
        "original count. Methods whose count follows the image take it as the target of the mean, or not at "
        "all (list_methods() says which); at 1 nothing is dropped in any method.",
        "a number or a list of numbers",
        (float, list),
        of=float,
    )
    layer: int | list[int] | str | None = option(
        None,
        'encoder layer after which tokens leave (0 is the first); a list of them; "output" for after the '
        "tower (language-model families); None for the method's own place, or the family's default. A list "
        "with one ratio shares the reduction geometrically, or as the method says.",
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
        self, num_layers: int, default_layer: int, what: str = "the encoder", has_output: bool = False
    ) -> list[tuple[int, float]]:
        """The same as hf_vtp.schedule.stages."""
        return stages(self, num_layers, default_layer, what, has_output)

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
