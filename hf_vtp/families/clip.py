"""CLIP: CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection, CLIPForImageClassification."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import OUTPUT, VTPConfig
from ..pruning.run import Group, Run
from ..pruning.stage import observe, prune
from ..pruning.tokens import VisionTokens, take
from ..towers.layer_hooks import LayerHooks
from ..towers.tower import Tower
from .base import Adapter, register_adapter, register_tower, tower_for

TAKES_BIAS = ("eager", "sdpa", "flex_attention")  # attention that adds a float mask to its logits


@register_tower("clip_vision_model")
class CLIPTower(Tower):
    """A ViT with one [CLS] token in front; absorbed tokens weigh through the attention mask."""

    num_prefix_tokens = 1

    def __init__(self, module: nn.Module, config: VTPConfig, stages: list[tuple[int, float]]):
        super().__init__(module, config, stages)
        self.masks = self.weighs or self.adaptive  # later layers get a mask
        self.own_configs = {}  # of attentions that run on SDPA meanwhile, by layer

    @classmethod
    def layers(cls, module: nn.Module) -> nn.ModuleList:
        return module.encoder.layers

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        attention = layer.self_attn
        modules = {"full_query": attention.q_proj, "full_key": attention.k_proj}
        return modules | ({"full_value": attention.v_proj} if "value" in self.needs else {})

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        pixel_values = args[0] if args else kwargs.get("pixel_values")
        if pixel_values is None:
            return Run([]), kwargs  # Transformers says what is missing
        patch = self.module.config.patch_size
        batch, _, height, width = pixel_values.shape
        return Run([(1, height // patch, width // patch)] * batch), kwargs

    def prune(self, run: Run, layer: int, hidden_states: Tensor, states: dict[str, Tensor]) -> Tensor:
        p, entered = self.num_prefix_tokens, self.entered(run, layer)
        _, rows, columns = run.grids[0]
        amounts = self.amounts(layer, rows * columns)
        if self.leaves_all(layer, hidden_states.shape[1] - p, amounts["num_keep"]):
            run.stages[layer] = [replace(entered, outcome=None)]
            run.layout[layer] = run.layout.get(self.layer_hooks[layer].behind)
            return hidden_states
        tokens = self.tokens(run, layer, hidden_states[:, p:], states, **amounts)
        replayed = run.stages.get(layer)
        outcome = prune(tokens, self.config, replayed[0].outcome if replayed else None)
        narrowed = torch.cat([hidden_states[:, :p], outcome.hidden_states], dim=1)  # [B, P + K, D]
        if replayed is None:
            outcome.hidden_states = None
            index = outcome.keep.clamp(min=0) if self.adaptive else outcome.keep
            positions = index if entered.positions is None else take(entered.positions, index)
            sizes = outcome.sizes
            if self.adaptive:
                positions = positions.where(outcome.keep >= 0, -1)
                sizes = (outcome.keep >= 0).float() if sizes is None else sizes
            run.stages[layer] = [Group(entered.images, positions, sizes, outcome)]
            run.seen = {watched: take(x, index) for watched, x in run.seen.items()}
            run.layout[layer] = self.key_bias(sizes, narrowed.dtype)
        return narrowed

    def observe(self, run: Run, layer: int, hidden_states: Tensor, states: dict[str, Tensor]) -> None:
        hidden_states = hidden_states[:, self.num_prefix_tokens :]
        tokens = self.tokens(run, layer, hidden_states, states, num_keep=hidden_states.shape[1])
        run.seen[layer] = observe(tokens, self.watched[layer])

    def entered(self, run: Run, layer: int) -> Group:
        """What the stage before left."""
        behind = self.layer_hooks[layer].behind
        return Group(range(len(run.grids)), None, None, None) if behind is None else run.stages[behind][0]

    def tokens(
        self, run: Run, layer: int, patches: Tensor, states: dict[str, Tensor], **amounts
    ) -> VisionTokens:
        """The view of all images' tokens [B, N, D] behind a layer."""
        entered = self.entered(run, layer)
        padded = self.adaptive and entered.positions is not None
        return VisionTokens(
            hidden_states=patches,
            grid=run.grids[0],
            positions=entered.positions,
            sizes=entered.sizes,
            valid=entered.positions >= 0 if padded else None,
            num_prefix_tokens=self.num_prefix_tokens,
            layer=layer,
            seen=run.seen,
            **amounts,
            **({} if self.call.text is None else self.call.text.of(entered.images)),
            **{name: self.split_heads(layer, x) for name, x in states.items()},
        )

    def kept(self, run: Run) -> Tensor:
        """Which tokens a forward left of each image, bool [images, N]."""
        group = run.stages[max(self.stages)][0]
        _, rows, columns = run.grids[0]
        if group.positions is None:
            return torch.ones(len(group.images), rows * columns, dtype=torch.bool)
        n, device = rows * columns, group.positions.device
        kept = torch.zeros(len(group.images), n + 1, dtype=torch.bool, device=device)
        return kept.scatter(1, group.positions % (n + 1), True)[:, :n]  # padding, -1, goes to the last column

    def left(self, run: Run) -> Tensor | None:
        """Which rows of a forward's output are tokens, bool [images, K]; None = all are."""
        positions = run.stages[max(self.stages)][0].positions
        return positions >= 0 if self.adaptive and positions is not None else None

    def split_heads(self, layer: int, states: Tensor) -> Tensor:
        """[B, L, D] to [B, H, L, d]"""
        attention = self.layer_hooks[layer].layer.self_attn
        return states.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    def key_bias(self, sizes: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """What is added to the logits of each key, [B, 1, 1, P + K]: log(size); for padding, all it takes."""
        if sizes is None or not self.masks:
            return None
        # Not as one more channel of queries and keys, which would say the same without a mask: under a CPU's
        # SDPA the bias adds 3 to 8 % to an attention, the channel 9 to 69 % (scripts/bench_weighted.py). No
        # GPU was measured.
        weight = sizes.log() if self.weighs else torch.zeros_like(sizes)
        weight = weight.to(dtype)  # before the fill: the least of float64 is beyond float32
        if self.adaptive:
            weight = weight.masked_fill(sizes == 0, torch.finfo(dtype).min)
        return torch.nn.functional.pad(weight, (self.num_prefix_tokens, 0))[:, None, None]

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        bias = run.layout.get(hooks.behind)
        if bias is None:
            return args, kwargs
        bias = bias.expand(-1, -1, args[0].shape[1], -1)  # flex attention indexes the query axis
        if len(args) > 1:
            return (args[0], bias, *args[2:]), kwargs
        return args, {**kwargs, "attention_mask": bias}

    def bind(self, hooks: LayerHooks) -> None:
        """FlashAttention takes no mask of floats: where there is one it gives way to SDPA."""
        if hooks.behind is None or not self.masks:
            return
        attention, native = hooks.layer.self_attn, self.module.config
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
            self.layer_hooks[index].layer.self_attn.config = self.module.config
        self.own_configs = {}


def refuse_callers(module: nn.Module, args: tuple) -> None:
    """Raise ValueError if a model with placeholders runs this tower, which is pruned without it."""
    frame = None if torch.compiler.is_compiling() else sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        config = getattr(caller, "config", None) if isinstance(caller, nn.Module) else None
        if getattr(config, "image_token_id", None) is not None:
            raise ValueError(
                f"the vision tower alone is pruned, while {type(caller).__name__} needs a feature for every "
                "placeholder; call remove_vtp(tower), then apply_vtp(model) on the whole model"
            )
        frame = frame.f_back


@register_adapter("clip", "clip_vision_model")
class CLIPAdapter(Adapter):
    """Tokens leave inside the vision encoder; the text tower is untouched."""

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        if config.layer == OUTPUT:
            raise ValueError("layer 'output' is for models with a language model; give CLIP an encoder layer")
        module = getattr(model, "vision_model", model)
        cls = tower_for(module)
        num_layers = len(cls.layers(module))
        tower = cls(module, config, config.stages(num_layers, default_layer=num_layers // 8))
        tower.pooled = True
        return tower

    def attach(self) -> None:
        super().attach()
        if self.model is self.tower.module:
            self.tower.handles.append(self.model.register_forward_pre_hook(refuse_callers))
        if hasattr(self.model, "classifier"):
            handle = self.tower.module.register_forward_hook(self.weigh_patches)
            self.tower.handles.append(handle)

    def weigh_patches(self, module: nn.Module, args: tuple, output):
        """The classifier takes the mean over patches: scale each row to count for its whole group."""
        run = self.tower.call.last
        group = run.stages[max(run.stages)][0]
        if group.sizes is None:
            return None
        p = self.tower.num_prefix_tokens
        share = group.sizes / group.sizes.mean(dim=-1, keepdim=True)  # [B, K]
        hidden_states = output.last_hidden_state
        patches = (hidden_states[:, p:].float() * share.unsqueeze(-1)).to(hidden_states.dtype)
        output.last_hidden_state = torch.cat([hidden_states[:, :p], patches], dim=1)
        return output
