"""Hooks that make tokens leave inside a vision tower; its row and its pattern say where and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ..config import VTPConfig
from ..names import takes_any_keyword
from ..per_thread import PerThread
from ..prompts.text import Text
from ..pruning.run import RUN, Run
from ..pruning.stage import adaptive, needs, prepare, watched, weighs
from ..pruning.tokens import num_keep
from ..stats import VTPStats, collect
from . import states
from .layer_hooks import LayerHooks
from .rows import Grid, TowerRow, find


@dataclass
class TowerCall:
    """What a tower holds of the forward in progress."""

    run: Run | None = None
    text: Text | None = None  # of the prompts around the images
    text_around: Callable[[dict], Text] | None = None  # makes it of the number of tokens of each image
    last: Run | None = None  # of this thread's last forward that came to its end
    grids: list[Grid] | None = None  # in patches, of what is about to be encoded


class Tower:
    """A vision tower pruned after some of its layers.

    A pattern gives the methods that raise NotImplementedError here, and reads where things are from a row.
    Hooks are bound methods of plain objects that the model holds, so that a deep copy of the model gets its
    own and runs its own weights.
    """

    num_prefix_tokens = 0  # [CLS] and registers in front of the patches
    has_cls = False
    pooled = False  # whether the tower itself pools what stays, or a language model reads it
    to_language: Callable[[Tensor], Tensor] | None = None  # tokens [B, N, M·D] into its space, [B, N, D']
    output_layer: int | None = None  # whose output a projector reads; None where it reads others beside it

    def __init__(
        self,
        row: TowerRow,
        module: nn.Module,
        config: VTPConfig,
        stages: list[tuple[int, float]],
        last: VTPConfig | None = None,
    ):
        """`last` is the config of the last stage, where it has parts of its own."""
        self.row = row
        self.module = module
        self.config = config
        self.stages = dict(stages)
        self.configs = dict.fromkeys(self.stages, config)  # by layer
        if last is not None:
            self.configs[max(self.stages)] = last
        chosen = list(self.configs.values())
        self.needs = set().union(*map(needs, chosen))
        self.adaptive = any(map(adaptive, chosen))
        self.watched: dict[int, list] = {}
        for layer, own in self.configs.items():
            for seen, wanted in watched(own, [layer], len(self.layers), self.num_prefix_tokens).items():
                known = self.watched.setdefault(seen, [])
                known += [each for each in wanted if each not in known]
        if "cls" in self.needs and not self.has_cls:
            raise ValueError(
                f"method {config.method!r} reads the attention of a [CLS] token, which this tower lacks; "
                "choose one that does not"
            )
        missing = next((x for x in self.layers if find(x, row.attention_norm) is None), None)
        if "next" in self.needs and missing is not None:
            raise ValueError(
                f"method {config.method!r} reads queries and keys of the next layer, and what is before the "
                f"attention of {type(missing).__name__} is not known; give its TowerRow an attention_norm"
            )
        for own in chosen:
            prepare(own)
        self.weighs = any(map(weighs, chosen))
        self.calls = PerThread(TowerCall)
        self.hands_down = takes_any_keyword(module)  # else layers find the run of this thread's forward here
        self.last: Run | None = None  # of the last forward that came to its end, in whichever thread
        self.layer_hooks = [LayerHooks(self, i, layer) for i, layer in enumerate(self.layers)]
        self.handles: list = []

    @property
    def call(self) -> TowerCall:
        """This thread's."""
        return self.calls.now

    @property
    def layers(self) -> nn.ModuleList:
        """The encoder layers, in the order they run."""
        return find(self.module, self.row.layers)

    def attention(self, layer: nn.Module) -> nn.Module:
        """A layer's attention."""
        return find(layer, self.row.attention)

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        """The projections of a layer's attention that methods may ask for, by name, as they are now."""
        raise NotImplementedError(f"{type(self).__name__} must name its projections")

    def of_next_layer(self, layer: int, hidden_states: Tensor) -> dict[str, Tensor]:
        """What the projections of the layer after a stage's would give for its states; {} after the last."""
        if "next" not in self.needs or layer + 1 == len(self.layers):
            return {}
        module = self.layers[layer + 1]
        last = {name: x for name, x in self.projections(module).items() if name != states.WANTED[2]}
        linear = dict(zip(states.WANTED, self.row.linear.split(), strict=False))
        chains = {
            name: (find(self.attention(module), linear[name]), x) if linear else (x,)
            for name, x in last.items()
        }
        norm = find(module, self.row.attention_norm) if self.row.attention_norm else None
        return states.as_if_next(hidden_states, norm, chains)

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        """A Run for these arguments of the tower's forward, and the keyword arguments to go on with."""
        raise NotImplementedError(f"{type(self).__name__} must read its input's grids")

    def prune(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> Tensor:
        """The narrowed output of a stage's layer; sets `run.stages[layer]`, or follows what is set there.

        `recorded` are the outputs of `projections` in this very forward, the layer's `position_embeddings`,
        and what the next layer would give where a method asks for it.
        """
        raise NotImplementedError(f"{type(self).__name__} must prune")

    def observe(self, run: Run, layer: int, hidden_states: Tensor, recorded: dict[str, Tensor]) -> None:
        """Put into `run.seen[layer]` what a method asked to observe of this layer."""
        raise NotImplementedError(f"{type(self).__name__} must observe layers")

    def amounts(self, layer: int, num_tokens: int) -> dict:
        """What VisionTokens says of how many of an image's (or frame's) `num_tokens` a stage is to keep."""
        config, last = self.config, max(self.stages)
        bounds = {"min_keep": config.min_keep, "max_keep": config.max_keep}
        before = [stage for stage in self.stages if stage < layer]
        return {
            "num_keep": num_keep(num_tokens, self.stages[layer], **bounds),
            "target": num_keep(num_tokens, self.stages[last], **bounds),
            "share": self.stages[layer] / (self.stages[max(before)] if before else 1.0),
            "remaining": last - layer,
            "pooled": self.pooled,
            **bounds,
        }

    def language(self, layer: int, images: list[int] | range) -> dict:
        """What VisionTokens says of the language model that is to read some images."""
        fields = {} if self.call.text is None else self.call.text.of(images)
        if self.to_language is not None and self.needs & {"text", "projected"}:
            fields |= {"project": self.to_language, "at_output": layer == self.output_layer}
        return fields

    def leaves_all(self, layer: int, num_tokens: int, num_keep: int) -> bool:
        """Whether a stage has nothing to do. Counts that follow the image are not known before."""
        return self.stages[layer] == 1 if self.adaptive else num_keep >= num_tokens

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """A layer's arguments made fit for what the stage at layer `hooks.previous_stage` kept."""
        raise NotImplementedError(f"{type(self).__name__} must narrow its layers' arguments")

    def rope(self, args: tuple, kwargs: dict) -> tuple[Tensor, ...] | None:
        """The rotary positions among a layer's arguments, None where it takes none."""
        return kwargs.get("position_embeddings")

    def expect(self, name: str, arguments: dict) -> None:
        """What is about to be encoded is an argument of the whole model."""

    def counts(self, grids: list[tuple[int, int, int]]) -> list[int]:
        """Tokens of images with these grids of patches."""
        raise NotImplementedError(f"{type(self).__name__} must count tokens")

    def bind(self, hooks: LayerHooks) -> None:
        """What must hold of a layer when a forward begins; called before each."""

    def attach(self) -> None:
        """Put the hooks on."""
        self.handles = [
            self.module.register_forward_pre_hook(self._before, with_kwargs=True),
            self.module.register_forward_hook(self._after),
        ]
        for hooks in self.layer_hooks:
            self.handles += hooks.attach()

    def detach(self) -> None:
        """Take back everything that `attach` and the forwards since have put on."""
        for handle in self.handles:
            handle.remove()
        self.handles = []
        for hooks in self.layer_hooks:
            hooks.release()

    def stats(self) -> VTPStats:
        """VTPStats of the last forward that came to its end."""
        if self.last is None:
            raise RuntimeError(
                "no forward has run since apply_vtp; run the model once, then ask for its statistics"
            )
        return collect(self.last)

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        for hooks in self.layer_hooks:
            hooks.bind()
        self.call.run, kwargs = self.begin(args, kwargs)
        return args, {**kwargs, RUN: self.call.run} if self.hands_down else kwargs

    def _after(self, module: nn.Module, args: tuple, output) -> None:
        run, self.call.run = self.call.run, None
        for layer in self.stages if run.grids else ():
            self.check_ran(run, layer)
        self.last = self.call.last = run

    def check_ran(self, run: Run, layer: int) -> None:
        """Raise RuntimeError if the stage after a layer did not run in a forward that is past it."""
        if layer not in run.stages:
            raise RuntimeError(
                f"the stage after layer {layer} of {type(self.module).__name__} did not run, so nothing was "
                "pruned there; its forward does not call its layers as hf_vtp expects, call remove_vtp(model)"
            )

    def __getstate__(self) -> dict:
        return {**vars(self), "last": None}  # what a forward left is no part of a model
