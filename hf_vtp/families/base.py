"""What an adapter is: one pruned model."""

from __future__ import annotations

from torch import nn

from ..config import VTPConfig
from ..stats import VTPStats
from ..towers.tower import Tower


class Adapter:
    """One pruned model of a family: knows where its tower is and what follows it.

    The constructor validates and changes nothing; `attach` puts the hooks on, `detach` takes them off.
    """

    reads_text = False  # whether images come with a prompt of their own
    own_config: object  # the model's while it is pruned, see hf_vtp/model_config.py; apply_vtp sets it

    def __init__(self, model: nn.Module, config: VTPConfig):
        self.model = model
        self.config = config
        self.tower = self.make_tower(model, config)
        if "text" in self.tower.needs and not self.reads_text:
            raise ValueError(
                f"method {config.method!r} compares image tokens with the text of a prompt, which "
                f"{type(model).__name__} does not have; choose one that needs no text, see list_methods()"
            )

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        """The tower with its stages; raises ValueError for a layer where pruning has no effect."""
        raise NotImplementedError(f"{type(self).__name__} must make its tower")

    def attach(self) -> None:
        self.tower.attach()

    def detach(self) -> None:
        self.tower.detach()

    def stats(self) -> VTPStats:
        return self.tower.stats()
