"""Tokens as the language model reads them: which stages see them so, and what brings them there."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import OUTPUT, VTPConfig
from ..pruning.registry import OF_LAYERS
from ..pruning.stage import needs
from ..towers.rows import find
from ..towers.tower import Tower
from .read_states import layers_read
from .table import FamilyRow, tower_row


def waits_for_features(inner: nn.Module, row: FamilyRow, config: VTPConfig, cell: int) -> bool:
    """Whether a stage at the output of a model's tower must act on its features to see tokens projected.

    So where a projector cannot be asked for one token's row, as one that makes a row of a cell cannot, unless
    the method reads the tower's layers.
    """
    if "projected" not in needs(config) or not row.tower or config.place != OUTPUT:
        return False
    row_wise = cell == 1 and tower_row(find(inner, row.tower)).row_wise
    return not row_wise and not OF_LAYERS & needs(config.after_features())


def output_layer(config: object, depth: int) -> int | None:
    """The layer whose output a projector reads, the last of `depth`; None where it reads others beside it."""
    return depth - 1 if len(layers_read(config)) < 2 else None


def projected(tower: Tower, projector: nn.Module, content: Tensor, config: object) -> Tensor:
    """A tower's tokens [B, N, M·D] in the language model's space, [B, N, D']; `config` is the root's."""
    if tower.row.norm and not layers_read(config):  # then the tower's last_hidden_state is read
        content = find(tower.module, tower.row.norm)(content)
    return tower.project(content, projector)
