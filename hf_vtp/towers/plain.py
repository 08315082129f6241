"""A plain ViT: images in a batch, prefix tokens in front, keys weighed and masked by the attention's mask."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..config import VTPConfig
from ..names import Argument
from ..pruning.run import Group, Run
from ..pruning.stage import observe, prune
from ..pruning.tokens import VisionTokens, take
from . import pooling, states
from .cells import Cells
from .layer_hooks import LayerHooks, refuse_replay
from .rows import Grid, TowerRow, find
from .states import scattered
from .tower import Tower

TAKES_BIAS = ("eager", "sdpa", "flex_attention")  # attention that adds a float mask to its logits


@dataclass
class Narrowed:
    """What the layers after one stage are handed."""

    positions: Tensor | None = None  # [B, K] tokens that were kept, -1 for padding; None = all
    index: Tensor | None = None  # [B, P + K·M] rows of the unpruned sequence, once somebody asked for them
    bias: Tensor | None = None  # [B, 1, 1, P + K·M] added to the logits of each key
    mask: Tensor | None = None  # the tower's own, with the bias
    rope: tuple[Tensor, ...] | None = None  # the tower's own
    length: int = 0  # rows of the unpruned sequence, where images are padded


class PlainTower(Tower):
    """Patches of one size of image, in raster order, behind prefix tokens; absorbed tokens weigh as keys.

    Tokens are patches, or where a projector needs the grid, cells of `cell` x `cell` patches that leave
    together. A run's layout is a dict of Narrowed by stage.
    """

    def __init__(
        self,
        row: TowerRow,
        module: nn.Module,
        config: VTPConfig,
        stages: list[tuple[int, float]],
        cell: int = 1,
    ):
        self.num_prefix_tokens = row.num_prefix_tokens(module)
        self.has_cls = row.cls and self.num_prefix_tokens > 0
        self.cells = Cells(cell)
        super().__init__(row, module, config, stages)
        self.padded = self.adaptive  # images may keep different counts, and are padded to the longest
        self.masks = self.weighs or self.padded  # later layers get a mask
        self.mask = Argument(self.layers[0], "attention_mask")
        self.position_embeddings = Argument(self.layers[0], "position_embeddings")
        self.own_configs = {}  # of attentions that run on SDPA meanwhile, by layer
        self.attention_mask = Argument(self.attention(self.layers[0]), "attention_mask")
        if self.masks and not self.mask.taken and not self.attention_mask.taken:
            raise ValueError(
                f"{type(module).__name__} of this Transformers takes no attention mask, and method "
                f"{config.method!r} needs one; install a newer Transformers, or choose a method that drops "
                "an exact number of tokens, as 'qk_topk' does"
            )

    def restore(self, projector: nn.Module) -> list:
        """Hooks that give a projector the grid it needs, and mark its rows of tokens that were dropped."""
        from .restore import Restore

        return Restore(self, projector).attach()

    def attention(self, layer: nn.Module) -> nn.Module:
        """A layer's attention."""
        return find(layer, self.row.attention)

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        wanted = states.WANTED if "value" in self.needs else states.WANTED[:2]
        return states.projections(self.attention(layer), self.row.projections, wanted)

    def rope(self, args: tuple, kwargs: dict) -> tuple[Tensor, ...] | None:
        rope = self.position_embeddings.of(args, kwargs)
        return rope and tuple(x.rope if isinstance(x, states.PerImage) else x for x in rope)

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        grids = self.row.grids(self.module, states.arguments(self.module, args, kwargs))
        return Run([self.cells.grid(grid) for grid in grids], {}), kwargs

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
        entered, before = self.entered(run, layer), run.stages.get(layer)
        replayed = before[0] if before else None
        narrowed, group = self.pruned(run, layer, entered, hidden_states, recorded, run.seen, replayed)
        if before is None:
            run.stages[layer] = [group]
            if group.outcome is None:
                run.layout[layer] = run.layout.get(self.layer_hooks[layer].previous_stage, Narrowed())
                return narrowed
            run.seen = {watched: take(x, within(group)) for watched, x in run.seen.items()}
            run.layout[layer] = Narrowed(group.positions, bias=self.key_bias(group.sizes, narrowed.dtype))
        return narrowed

    def pruned(
        self,
        run: Run,
        layer: int,
        entered: Group,
        hidden_states: Tensor,
        recorded: dict[str, Tensor],
        seen: dict[int, Tensor],
        replayed: Group | None,
    ) -> tuple[Tensor, Group]:
        """Output of a stage's layer for images of one grid, [B, P + N·M, D], as [B, P + K·M, D]."""
        p, grid = self.num_prefix_tokens, run.grids[entered.images[0]]
        amounts = self.amounts(layer, math.prod(grid))
        num_tokens = (hidden_states.shape[1] - p) // self.cells.size
        if self.leaves_all(layer, num_tokens, amounts["num_keep"]):
            return hidden_states, replace(entered, outcome=None)
        tokens = self.tokens(run, layer, entered, hidden_states, recorded, seen=seen, **amounts)
        outcome = prune(tokens, self.config, replayed.outcome if replayed else None)
        kept = self.cells.side_by_side(outcome.hidden_states)  # [B, K·M, D]
        narrowed = torch.cat([hidden_states[:, :p], kept], dim=1)
        if replayed is not None:
            return narrowed, replayed
        outcome.hidden_states = None
        group = Group(entered.images, outcome.keep, outcome.sizes, outcome)
        index = within(group) if self.adaptive else outcome.keep
        positions = index if entered.positions is None else take(entered.positions, index)
        if self.adaptive:
            positions = positions.where(outcome.keep >= 0, -1)
            group.sizes = (outcome.keep >= 0).float() if outcome.sizes is None else outcome.sizes
        group.positions = positions
        return narrowed, group

    def observe(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> None:
        run.seen[layer] = self.observed(
            run, layer, self.entered(run, layer), hidden_states, recorded, run.seen
        )

    def observed(
        self,
        run: Run,
        layer: int,
        entered: Group,
        hidden_states: Tensor,
        recorded: dict[str, Tensor],
        seen: dict[int, Tensor],
    ) -> Tensor:
        """What a method asked to observe of images of one grid, [B, N]."""
        num_tokens = (hidden_states.shape[1] - self.num_prefix_tokens) // self.cells.size
        tokens = self.tokens(run, layer, entered, hidden_states, recorded, seen=seen, num_keep=num_tokens)
        return observe(tokens, self.watched[layer])

    def entered(self, run: Run, layer: int) -> Group:
        """What the stage before kept."""
        previous = self.layer_hooks[layer].previous_stage
        return Group(range(len(run.grids)), None, None, None) if previous is None else run.stages[previous][0]

    def tokens(
        self,
        run: Run,
        layer: int,
        entered: Group,
        hidden_states: Tensor,
        recorded: dict[str, Tensor],
        **amounts,
    ) -> VisionTokens:
        """The view of tokens of images of one grid after a layer, whose output is [B, P + N·M, D]."""
        p, grid = self.num_prefix_tokens, run.grids[entered.images[0]]
        padded = self.adaptive and entered.positions is not None
        whole = grid if entered.positions is None else None  # cells are still in raster order
        views = states.heads(recorded, self.attention(self.layers[layer]), self.module.config, self.needs)
        views = {name: self.cells.in_order(x, whole, p, dim=2) for name, x in views.items()}
        return VisionTokens(
            **self.cells.view(self.cells.in_order(hidden_states, whole, p, dim=1)[:, p:]),
            grid=grid,
            positions=entered.positions,
            sizes=entered.sizes,
            valid=entered.positions >= 0 if padded else None,
            num_prefix_tokens=p,
            layer=layer,
            **amounts,
            **({} if self.call.text is None else self.call.text.of(entered.images)),
            **views,
        )

    def positions(self, run: Run) -> Tensor | None:
        """Tokens that a forward kept of each image, [B, K], -1 for padding; None = all."""
        return run.layout[max(self.stages)].positions

    def kept(self, run: Run) -> Tensor | None:
        """The same as bool [B, N]."""
        positions = self.positions(run)
        if positions is None:
            return None
        n = math.prod(run.grids[0])
        kept = torch.zeros(len(positions), n + 1, dtype=torch.bool, device=positions.device)
        return kept.scatter(1, positions % (n + 1), True)[:, :n]  # padding, -1, goes to the last column

    def restored(self, run: Run, hidden_states: Tensor) -> Tensor:
        """[B, P + K·M, D] as [B, P + N·M, D] in raster order, zeros where a token was dropped.

        States of before the last stage, which have other lengths, stay as they are.
        """
        narrowed, p = run.layout[max(self.stages)], self.num_prefix_tokens
        index = self.index(run, narrowed)
        if hidden_states.shape[1] != index.shape[1]:
            return hidden_states
        padding = (narrowed.positions < 0).repeat_interleave(self.cells.size, dim=1)
        index = index.masked_fill(torch.nn.functional.pad(padding, (p, 0)), -1)
        return scattered(hidden_states, index, p + math.prod(run.grids[0]) * self.cells.size)

    def index(self, run: Run, narrowed: Narrowed) -> Tensor:
        """Rows of the unpruned sequence that the layers after a stage still have, [B, P + K·M]."""
        if narrowed.index is None:
            narrowed.index = self.cells.rows(narrowed.positions, run.grids[0], self.num_prefix_tokens)
        return narrowed.index

    def key_bias(self, sizes: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Added to the logits of each key, [B, 1, 1, P + K·M]: log(size); for padding, all it takes."""
        if sizes is None or not self.masks:
            return None
        # Not as one more channel of queries and keys, which would say the same without a mask: under a CPU's
        # SDPA the bias adds 3 to 8 % to an attention, the channel 9 to 69 % (bench_weighted.py). No
        # GPU was measured.
        weight = sizes.log() if self.weighs else torch.zeros_like(sizes)
        weight = weight.to(dtype)  # before the fill: the least of float64 is beyond float32
        if self.padded:
            weight = weight.masked_fill(sizes == 0, torch.finfo(dtype).min)
        weight = weight.repeat_interleave(self.cells.size, dim=1)
        return torch.nn.functional.pad(weight, (self.num_prefix_tokens, 0))[:, None, None]

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        narrowed = run.layout[hooks.previous_stage]
        if narrowed.positions is None:
            return args, kwargs
        rope = self.rope(args, kwargs)
        if rope is not None:
            if narrowed.rope is None:
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
            if given is None:  # expanded: flex attention indexes the query axis
                narrowed.mask = narrowed.bias.expand(-1, -1, narrowed.bias.shape[-1], -1)
            else:
                narrowed.mask = states.narrow_mask(given, self.index(run, narrowed), narrowed.bias)
        return mask.put(narrowed.mask, args, kwargs)

    def weighed(self, run: Run, hidden_states: Tensor) -> Tensor:
        """The tower's tokens [B, P + K, D] such that their mean over patches weighs each by its size."""
        sizes = run.stages[max(self.stages)][0].sizes
        if sizes is None:
            return hidden_states
        return pooling.weighed(hidden_states, sizes, self.num_prefix_tokens)

    def attach(self) -> None:
        super().attach()
        if self.masks and self.row.head:
            self.handles += pooling.attach(self, find(self.module, self.row.head))
        if self.masks and not self.mask.taken:  # such layers call their attention without a mask
            for hooks in self.layer_hooks:
                if hooks.previous_stage is not None:
                    attention = self.attention(hooks.layer)
                    handle = attention.register_forward_pre_hook(MaskAttention(self, hooks), with_kwargs=True)
                    self.handles.append(handle)

    def bind(self, hooks: LayerHooks) -> None:
        """FlashAttention takes no mask of floats: where there is one it gives way to SDPA."""
        if hooks.previous_stage is None or not self.masks:
            return
        attention, native = self.attention(hooks.layer), self.module.config
        if attention.config is not native and attention.config is not self.own_configs.get(hooks.index):
            return
        if native._attn_implementation in TAKES_BIAS:
            attention.config = native
        elif attention.config is native:
            attention.config = self.own_configs[hooks.index] = copy.copy(native)
            attention.config._attn_implementation = "sdpa"

    def detach(self) -> None:
        super().detach()
        for index in self.own_configs:
            self.attention(self.layer_hooks[index].layer).config = self.module.config
        self.own_configs = {}


def within(group: Group) -> Tensor:
    """What a stage kept, among the tokens that entered it, [B, K]; of padding, any."""
    return group.outcome.keep.clamp(min=0)


class MaskAttention:
    """Hands an attention the mask that its layer does not take."""

    def __init__(self, tower: PlainTower, hooks: LayerHooks):
        self.tower, self.hooks = tower, hooks
        self.mask = tower.attention_mask

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        run = self.hooks.call.run
        if run is None:
            refuse_replay(module)
            return args, kwargs
        narrowed = run.layout[self.hooks.previous_stage]
        if narrowed.positions is None:
            return args, kwargs
        return self.tower.narrow_mask(run, narrowed, self.mask, args, kwargs)
