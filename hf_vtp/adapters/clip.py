"""CLIP: CLIPModel, CLIPVisionModel, CLIPVisionModelWithProjection, CLIPForImageClassification."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..config import OUTPUT, VTPConfig
from ..pruner import Outcome, prune
from ..run import Group, Run
from ..tokens import VisionTokens, num_keep, take
from ..tower import LayerHooks, Tower
from .base import Adapter, register_adapter, register_tower, tower_for

TAKES_BIAS = ("eager", "sdpa", "flex_attention")  # attention that adds a float mask to its logits


@register_tower("clip_vision_model")
class CLIPTower(Tower):
    """A ViT with one [CLS] token in front; absorbed tokens weigh through the attention mask."""

    num_prefix_tokens = 1

    def __init__(self, module: nn.Module, config: VTPConfig, stages: list[tuple[int, float]]):
        super().__init__(module, config, stages)
        self.own_configs = {}  # of attentions that run on SDPA meanwhile, by layer

    @classmethod
    def layers(cls, module: nn.Module) -> nn.ModuleList:
        return module.encoder.layers

    def projections(self, layer: nn.Module) -> dict[str, nn.Module]:
        return {"full_query": layer.self_attn.q_proj, "full_key": layer.self_attn.k_proj}

    def begin(self, args: tuple, kwargs: dict) -> tuple[Run, dict]:
        pixel_values = args[0] if args else kwargs.get("pixel_values")
        if pixel_values is None:
            return Run([]), kwargs  # Transformers says what is missing
        patch = self.module.config.patch_size
        batch, _, height, width = pixel_values.shape
        return Run([(1, height // patch, width // patch)] * batch), kwargs

    def prune(self, run: Run, layer: int, hidden_states: Tensor, states: dict[str, Tensor]) -> Tensor:
        prefix = hidden_states[:, : self.num_prefix_tokens]
        patches = hidden_states[:, self.num_prefix_tokens :]
        entered = (
            run.stages[self.layer_hooks[layer].behind][0]
            if self.layer_hooks[layer].behind is not None
            else None
        )
        positions, sizes = (entered.positions, entered.sizes) if entered else (None, None)
        frames, rows, columns = run.grids[0]
        count = num_keep(rows * columns, self.stages[layer], self.config.min_keep, self.config.max_keep)
        images = range(patches.shape[0])
        if count >= patches.shape[1]:
            run.stages[layer] = [Group(images, positions, sizes, None)]
            return hidden_states
        tokens = VisionTokens(
            hidden_states=patches,
            num_keep=count,
            grid=(frames, rows, columns),
            positions=positions,
            sizes=sizes,
            num_prefix_tokens=self.num_prefix_tokens,
            layer=layer,
            **{name: self.split_heads(layer, x) for name, x in states.items()},
        )
        replayed = run.stages.get(layer)
        outcome = prune(tokens, self.config, replayed[0].outcome if replayed else None)
        narrowed = torch.cat([prefix, outcome.hidden_states], dim=1)  # [B, P + K, D]
        if replayed is None:
            outcome.hidden_states = None
            positions = outcome.keep if positions is None else take(positions, outcome.keep)
            run.stages[layer] = [Group(images, positions, outcome.sizes, outcome)]
            run.layout[layer] = self.size_bias(outcome, narrowed.dtype)
        return narrowed

    def kept(self) -> Tensor:
        """Which tokens the last forward left of each image, bool [images, N]."""
        group = self.last.stages[max(self.stages)][0]
        _, rows, columns = self.last.grids[0]
        if group.positions is None:
            return torch.ones(len(group.images), rows * columns, dtype=torch.bool)
        kept = torch.zeros(len(group.images), rows * columns, dtype=torch.bool, device=group.positions.device)
        return kept.scatter(1, group.positions, True)

    def split_heads(self, layer: int, states: Tensor) -> Tensor:
        """[B, L, D] to [B, H, L, d]"""
        attention = self.layer_hooks[layer].layer.self_attn
        return states.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    def size_bias(self, outcome: Outcome, dtype: torch.dtype) -> Tensor | None:
        """log(size) of each key, 0 for the prefix, as an additive mask [B, 1, 1, P + K]."""
        if outcome.sizes is None or not self.weighs:
            return None
        bias = torch.nn.functional.pad(outcome.sizes.log(), (self.num_prefix_tokens, 0))
        return bias.to(dtype)[:, None, None]

    def narrow(self, run: Run, hooks: LayerHooks, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        bias = run.layout.get(hooks.behind)
        if bias is None:
            return args, kwargs
        bias = bias.expand(-1, -1, args[0].shape[1], -1)  # flex attention indexes the query axis
        if len(args) > 1:
            return (args[0], bias, *args[2:]), kwargs
        return args, {**kwargs, "attention_mask": bias}

    def bind(self, hooks: LayerHooks) -> None:
        """FlashAttention reads a mask as padding only: where sizes weigh it gives way to SDPA."""
        if hooks.behind is None or not self.weighs:
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


@register_adapter("clip", "clip_vision_model")
class CLIPAdapter(Adapter):
    """Tokens leave inside the vision encoder; the text tower is untouched."""

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        if config.layer == OUTPUT:
            raise ValueError("layer 'output' is for models with a language model; give CLIP an encoder layer")
        module = getattr(model, "vision_model", model)
        cls = tower_for(module)
        num_layers = len(cls.layers(module))
        return cls(module, config, config.stages(num_layers, default_layer=num_layers // 8))

    def attach(self) -> None:
        super().attach()
        if hasattr(self.model, "classifier"):
            handle = self.tower.module.register_forward_hook(self.weigh_patches)
            self.tower.handles.append(handle)

    def weigh_patches(self, module: nn.Module, args: tuple, output):
        """The classifier takes the mean over patches: scale each row to count for its whole group."""
        run = self.tower.last
        group = run.stages[max(run.stages)][0]
        if group.sizes is None:
            return None
        p = self.tower.num_prefix_tokens
        share = group.sizes / group.sizes.mean(dim=-1, keepdim=True)  # [B, K]
        hidden_states = output.last_hidden_state
        patches = (hidden_states[:, p:].float() * share.unsqueeze(-1)).to(hidden_states.dtype)
        output.last_hidden_state = torch.cat([hidden_states[:, :p], patches], dim=1)
        return output
