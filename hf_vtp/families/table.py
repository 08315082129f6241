"""Which models can be pruned: the tables of rows, and look-up in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from ..config import VTPConfig
from ..towers.rows import TowerRow, find
from .base import Adapter


@dataclass(frozen=True)
class FamilyRow:
    """A vision-language model that puts image features in place of placeholders, by where its parts are.

    Paths start at the module that has `get_image_features`.

    Args:
        tower: path to the vision tower, whose model_type has a TowerRow; "" prunes after the features.
        projector: path to the module that makes the language model's rows of the tower's tokens, row by row,
            or cell by cell.
        cell: side of the square of patches that the projector makes one row of; a number, or a function of
            the root's config.
        tiles: whether a picture may be several images of the tower, or lose rows after the projector.
        first_position: where the language model counts positions from.
        reads_ids: whether its own forward must put features in, because it makes more of ids than embeddings.
        video_token: the config's attribute with the id of a video's placeholders, if not the video's own.
        adapter: the class that prunes it; None for PlaceholderModel.
    """

    tower: str = ""
    projector: str = ""
    cell: int | Callable[[object], int] = 1
    tiles: bool = False
    first_position: int = 0
    reads_ids: bool = False
    video_token: str = ""
    adapter: type[Adapter] | None = None


TOWERS: dict[str, TowerRow] = {}  # by the vision tower's model_type
VISION: dict[str, str] = {}  # by the model_type of a root without a language model, its tower's
FAMILIES: dict[str, FamilyRow] = {}  # by the root's model_type
ADAPTERS: dict[str, type[Adapter]] = {}  # of one's own, by the root's model_type
REFUSED: dict[str, str] = {}  # by model_type, why it cannot be pruned


def register_tower(model_types: str | Iterable[str], row: TowerRow, *roots: str) -> None:
    """Have vision towers of these model_types pruned as a row says, alone and in language models.

    `roots` are the model_types of models around the tower that have no language model (CLIPModel's is
    "clip"). Raises ValueError for a model_type that has a row already.
    """
    names = (model_types,) if isinstance(model_types, str) else tuple(model_types)
    for name in names:
        _new(name, TOWERS)
    for name in roots:
        _new(name, VISION)
    TOWERS.update(dict.fromkeys(names, row))
    VISION.update({name: names[0] for name in names if row.alone})
    VISION.update(dict.fromkeys(roots, names[0]))


def register_family(model_types: str | Iterable[str], row: FamilyRow) -> None:
    """Have vision-language models of these model_types pruned as a row says.

    Raises ValueError for a model_type that has a row already.
    """
    names = (model_types,) if isinstance(model_types, str) else tuple(model_types)
    for name in names:
        _new(name, FAMILIES)
    FAMILIES.update(dict.fromkeys(names, row))


def register_adapter(*model_types: str) -> Callable[[type[Adapter]], type[Adapter]]:
    """Class decorator: the adapter serves models whose `config.model_type` is one of these."""

    def add(cls: type[Adapter]) -> type[Adapter]:
        ADAPTERS.update(dict.fromkeys(model_types, cls))
        return cls

    return add


def _new(name: str, table: dict) -> None:
    if name in table:
        raise ValueError(f"model_type {name!r} has a row already; choose another name")


def model_type(module: object) -> str | None:
    """The model_type in a module's config, or the config's class where that is empty; None if it has none."""
    config = getattr(module, "config", None)
    own = getattr(config, "model_type", None)
    return type(config).__name__ if own == "" else own


def can_be_pruned(model: nn.Module) -> bool:
    """Whether there is a way to prune a model, which may still refuse it for its class or its parts."""
    return _factory(model) is not None


def has_row(model: nn.Module) -> bool:
    """Whether a row, or an adapter of one's own, says where a model's tower is; tests go over the rows."""
    own = model_type(model)
    return own in ADAPTERS or own in VISION or (own in FAMILIES and bool(FAMILIES[own].tower))


def is_tower(model: nn.Module) -> bool:
    """Whether a model is a vision tower by its model_type."""
    return model_type(model) in TOWERS


def adapter_for(model: nn.Module) -> Callable[[nn.Module, VTPConfig], Adapter]:
    """What makes the adapter of a model; raises ValueError that says why there is none."""
    factory = _factory(model)
    if factory is None:
        own = model_type(model)
        raise ValueError(
            f"{type(model).__name__} (model_type {own!r}) cannot be pruned{_reason(model)}; choose a model "
            "that puts image features in place of placeholders, or one whose model_type is one of "
            f"{sorted(VISION)}"
        )
    return factory


def _reason(model: nn.Module) -> str:
    """Why a model cannot be pruned, after a semicolon; "" if nobody wrote it down."""
    timm = type(model).__module__.startswith("timm.")  # such models have no model_type
    reason = REFUSED.get("timm_wrapper" if timm else model_type(model))
    return f"; {reason}" if reason else ""


def reads_text(model: nn.Module) -> bool:
    """Whether images come to a model with a prompt; raises ValueError where it cannot be pruned."""
    factory = adapter_for(model)
    return getattr(factory, "func", factory).reads_text


def _factory(model: nn.Module) -> Callable[[nn.Module, VTPConfig], Adapter] | None:
    from .encoder_decoder import EncoderDecoder
    from .placeholder import PlaceholderModel, has_placeholders
    from .vision import VisionModel

    own = model_type(model)
    if own in ADAPTERS:
        return ADAPTERS[own]
    if own in REFUSED:
        return None
    if own in FAMILIES:
        row = FAMILIES[own]
        return functools.partial(row.adapter or PlaceholderModel, row)
    if own in VISION:
        return VisionModel
    if has_placeholders(model):
        pattern = EncoderDecoder if model.config.is_encoder_decoder else PlaceholderModel
        return functools.partial(pattern, FamilyRow())
    return None


def list_families() -> dict[str, dict[str, str]]:
    """Every model_type that has a row; the README's table is made from it.

    By model_type of the root: `kind`, "vision" or "language"; `tower`, the model_type of a vision model's
    tower, or the path to a language model's; `where`, where its tokens leave. A language model without a row
    that puts image features in place of placeholders is pruned after its features.
    """
    vision = {
        name: {"kind": "vision", "tower": tower, "where": "in the tower"} for name, tower in VISION.items()
    }
    language = {
        name: {
            "kind": "language",
            "tower": row.tower,
            "where": "in the tower" if row.tower else "after the features",
        }
        for name, row in FAMILIES.items()
    }
    return vision | language


def same_family(first: str, second: str) -> bool:
    """Whether what was made for models of one model_type fits those of another."""
    tables = (ADAPTERS, FAMILIES, VISION)
    return first == second or any(
        first in table and second in table and table[first] is table[second] for table in tables
    )


def tower_row(module: nn.Module) -> TowerRow:
    """The row of a vision tower; raises ValueError that lists the towers there are."""
    own = model_type(module)
    if own not in TOWERS:
        raise ValueError(
            f"a vision tower of model_type {own!r} cannot be pruned{_reason(module)}; choose from "
            f"{sorted(name for name in TOWERS if name.islower())}"  # others are names of classes
        )
    return TOWERS[own]


def find_tower(model: nn.Module) -> nn.Module | None:
    """The outermost vision tower within a model, or the model itself."""
    queue = [model]
    while queue:
        module = queue.pop(0)
        if is_tower(module) and find(module, TOWERS[model_type(module)].layers) is not None:
            return module
        queue += list(module.children())
    return None
