"""A plain ViT: images in a batch, prefix tokens in front, keys weighed and masked by the attention's mask."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..names import Argument
from ..pruning.run import Group, Run
from ..pruning.stage import observe, prune
from ..pruning.tokens import VisionTokens, take
from . import masks, pooling, states
from .cells import Cells
from .layer_hooks import LayerHooks
from .masks import MaskAttention, Narrowed, OwnConfigs
from .places import Places
from .rows import Grid, TowerRow, find
from .tower import Tower


@dataclass
class Part:
    """What a layer made of images of one grid."""

    entered: Group  # what of them is there
    hidden_states: Tensor  # [B, P + N·M, D]
    recorded: dict[str, Tensor]  # outputs of its projections, and its rotary positions
    seen: dict[int, Tensor]  # [B, N] by layer, what a method asked to observe

    def seen_of_kept(self, group: Group) -> dict[int, Tensor]:
        """The same of what a stage kept, [B, K]."""
        return {layer: take(x, group.outcome.keep.clamp(min=0)) for layer, x in self.seen.items()}


class PlainTower(Places, Tower):
    """Patches of one size of image, in raster order, after prefix tokens; absorbed tokens weigh as keys.

    Tokens are patches, or where a projector needs the grid, cells of `cell` x `cell` patches that leave
    together. A run's layout is a dict of Narrowed by stage.
    """

    def __init__(
        self,
        row: TowerRow,
        module: nn.Module,
        config: VTPConfig,
        stages: list[tuple[int, float]],
        last: VTPConfig | None = None,
        cell: int = 1,
    ):
        self.num_prefix_tokens = row.num_prefix_tokens(module)
        self.has_cls = row.cls and self.num_prefix_tokens > 0
        self.cells = Cells(cell)
        super().__init__(row, module, config, stages, last)
        self.masks = self.weighs or self.adaptive  # later layers get a mask
        self.mask = Argument(self.layers[0], "attention_mask")
        self.position_embeddings = Argument(self.layers[0], "position_embeddings")
        self.own_configs = OwnConfigs(self)
        self.attention_mask = Argument(self.attention(self.layers[0]), "attention_mask")

    def restore(self, projector: nn.Module) -> list:
        """Hooks that give a projector the grid it needs, and mark its rows of tokens that were dropped."""
        from .restore import Restore

        return Restore(self, projector).attach()

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        wanted = states.WANTED if "value" in self.needs else states.WANTED[:2]
        return states.projections(self.attention(layer), self.row.projections, wanted)

    def rope(self, args: tuple, kwargs: dict) -> tuple[Tensor, ...] | None:
        rope = self.position_embeddings.of(args, kwargs)
        return rope and tuple(x.rope if isinstance(x, states.PerImage) else x for x in rope)

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        grids = self.row.grids(self.module, states.arguments(self.module, args, kwargs))
        return Run([self.cells.grid(grid) for grid in grids]), kwargs

    def input_grids(self, name: str, arguments: dict) -> list[Grid] | None:
        """Grids of the images in an argument of the whole model, None where there are none."""
        pixels = arguments.get(name)
        return None if pixels is None else self.row.grids(self.module, {**arguments, "pixel_values": pixels})

    def counts(self, grids: list[Grid]) -> list[int]:
        return [math.prod(self.cells.grid(grid)) for grid in grids]

    def project(self, content: Tensor, projector: nn.Module) -> Tensor:
        """Tokens [B, N, M·D] in the language model's space, [B, N, D']."""
        return projector(content)

    def prune(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> Tensor:
        before = run.stages.get(layer)
        part = Part(self.entered(run, layer), hidden_states, recorded, run.seen)
        narrowed, group = self.pruned(run, layer, part, before[0] if before else None)
        if before is None:
            run.stages[layer] = [group]
            if group.outcome is None:
                run.layout[layer] = run.layout.get(self.layer_hooks[layer].previous_stage, Narrowed())
                return narrowed
            run.seen = part.seen_of_kept(group)
            run.layout[layer] = Narrowed(group.positions, bias=self.key_bias(group.sizes, narrowed.dtype))
        return narrowed

    def pruned(self, run: Run, layer: int, part: Part, replayed: Group | None) -> tuple[Tensor, Group]:
        """The narrowed output of a stage's layer, [B, P + K·M, D], and what it kept."""
        p, entered, hidden_states = self.num_prefix_tokens, part.entered, part.hidden_states
        amounts = self.amounts(layer, math.prod(run.grids[entered.images[0]]))
        num_tokens = (hidden_states.shape[1] - p) // self.cells.size
        if self.leaves_all(layer, num_tokens, amounts["num_keep"]):
            return hidden_states, replace(entered, outcome=None)
        tokens = self.tokens(run, layer, part, **amounts)
        outcome = prune(tokens, self.configs[layer], replayed.outcome if replayed else None)
        kept = self.cells.side_by_side(outcome.hidden_states)  # [B, K·M, D]
        narrowed = torch.cat([hidden_states[:, :p], kept], dim=1)
        if replayed is not None:
            return narrowed, replayed
        outcome.hidden_states = None
        index = outcome.keep.clamp(min=0) if self.adaptive else outcome.keep
        positions = index if entered.positions is None else take(entered.positions, index)
        sizes = outcome.sizes
        if self.adaptive:
            positions = positions.where(outcome.keep >= 0, -1)
            sizes = (outcome.keep >= 0).float() if sizes is None else sizes
        return narrowed, Group(entered.images, positions, sizes, outcome, outcome.order)

    def observe(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> None:
        part = Part(self.entered(run, layer), hidden_states, recorded, run.seen)
        run.seen[layer] = observe(self.tokens(run, layer, part), self.watched[layer])

    def entered(self, run: Run, layer: int) -> Group:
        """What the stage before kept."""
        previous = self.layer_hooks[layer].previous_stage
        return Group(range(len(run.grids)), None, None, None) if previous is None else run.stages[previous][0]

    def tokens(self, run: Run, layer: int, part: Part, num_keep: int = 1, **amounts) -> VisionTokens:
        """The view of tokens after a layer."""
        entered, p = part.entered, self.num_prefix_tokens
        grid = run.grids[entered.images[0]]
        padded = self.adaptive and entered.positions is not None
        whole = grid if entered.positions is None else None  # cells are still in raster order
        attention = self.attention(self.layers[layer])
        own, later = states.own_and_next(part.recorded)
        views = states.heads(own, attention, self.module.config, self.needs)
        if later:
            attention = self.attention(self.layers[layer + 1])
            views |= states.as_next(states.heads(later, attention, self.module.config, self.needs))
        views = {name: self.cells.in_order(x, whole, p, dim=2) for name, x in views.items()}
        return VisionTokens(
            **self.cells.view(self.cells.in_order(part.hidden_states, whole, p, dim=1)[:, p:]),
            num_keep=num_keep,
            grid=grid,
            positions=entered.positions,
            sizes=entered.sizes,
            order=entered.order,
            valid=entered.positions >= 0 if padded else None,
            num_prefix_tokens=p,
            layer=layer,
            seen=part.seen,
            **amounts,
            **self.language(layer, entered.images),
            **views,
        )

    def key_bias(self, sizes: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Added to the logits of each key, [B, 1, 1, P + K·M]; None where all weigh the same."""
        if sizes is None or not self.masks:
            return None
        return masks.key_bias(sizes, self.weighs, self.num_prefix_tokens, self.cells.size, dtype)

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        narrowed = run.layout[hooks.previous_stage]
        if narrowed.positions is None:
            return args, kwargs
        rope = self.rope(args, kwargs)
        if rope is not None:
            if narrowed.rope is None or rope[0].requires_grad:  # MLCD's is learned; layers are run again
                full = self.num_prefix_tokens + math.prod(run.grids[0]) * self.cells.size
                rope = states.narrow_rope(rope, self.index(run, narrowed), full)
                narrowed.rope = tuple(self.row.rope(x) for x in rope)
            args, kwargs = self.position_embeddings.put(narrowed.rope, args, kwargs)
        if not self.mask.taken:  # then it goes to the attention, see attach
            return args, kwargs
        return self.narrow_mask(run, narrowed, self.mask, args, kwargs)

    def narrow_mask(
        self, run: Run, narrowed: Narrowed, mask: Argument, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict]:
        """The arguments of a layer or of its attention with the mask of what was kept."""
        given = mask.of(args, kwargs)
        if given is None and narrowed.bias is None:
            return args, kwargs
        if narrowed.mask is None:
            if given is None:
                narrowed.mask = masks.expanded(narrowed.bias)
            else:
                narrowed.mask = masks.narrow_mask(given, self.index(run, narrowed), narrowed.bias)
        return mask.put(narrowed.mask, args, kwargs)

    def weighed(self, run: Run, hidden_states: Tensor) -> Tensor:
        """The tower's tokens [B, P + K, D] such that their mean over patches weighs each by its size."""
        sizes = run.stages[max(self.stages)][0].sizes
        return pooling.weighed(hidden_states, sizes, self.num_prefix_tokens)

    def attach(self) -> None:
        super().attach()
        if self.masks and self.row.head:
            self.handles += pooling.attach(self, find(self.module, self.row.head))
        if self.masks and not self.mask.taken:  # such layers call their attention without a mask
            later = [hooks for hooks in self.layer_hooks if hooks.previous_stage is not None]
            self.handles += [MaskAttention(self, hooks).attach() for hooks in later]

    def bind(self, hooks: LayerHooks) -> None:
        if self.masks and hooks.previous_stage is not None:
            self.own_configs.bind(hooks)

    def detach(self) -> None:
        super().detach()
        self.own_configs.detach()
