"""The hooks of one encoder layer: what its projections gave, what it is handed, what leaves after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..per_thread import PerThread
from ..pruning.registry import OF_LAYERS
from ..pruning.run import RUN, Run

if TYPE_CHECKING:
    from .tower import Tower


@dataclass
class LayerCall:
    """What the hooks of a layer hold between its beginning and its end."""

    run: Run | None = None
    rope: tuple[Tensor, Tensor] | None = None  # the layer's rotary embedding, where it takes one


class LayerHooks:
    """The hooks of one encoder layer."""

    def __init__(self, tower: Tower, index: int, layer: nn.Module):
        self.tower = tower
        self.index = index
        self.layer = layer
        self.stage = index in tower.stages
        self.reads = self.stage or index in tower.watched  # its queries, keys and values
        self.previous_stage = max((s for s in tower.stages if s < index), default=None)
        self.calls = PerThread(LayerCall)
        self.recorders: dict[str, Recorder] = {}

    def attach(self) -> list:
        handles = [self.layer.register_forward_pre_hook(self._before, with_kwargs=True)]
        if self.reads:
            # prepend: Transformers installs its output capture lazily, and it must see the narrowed tensor
            handles.append(self.layer.register_forward_hook(self._after, prepend=True))
        self.bind()
        return handles

    def bind(self) -> None:
        """Follow projections that were replaced since the last forward, as PEFT wraps and merges them."""
        self.tower.bind(self)
        if not self.reads or not self.tower.needs & OF_LAYERS:
            return
        for name, module in self.tower.projections(self.layer).items():
            if name not in self.recorders:
                self.recorders[name] = Recorder()
            recorder = self.recorders[name]
            if recorder.module is not module:
                recorder.release()
                recorder.attach(module)

    def release(self) -> None:
        for recorder in self.recorders.values():
            recorder.release()
        self.recorders = {}
        self.calls = PerThread(LayerCall)

    @property
    def call(self) -> LayerCall:
        """This thread's."""
        return self.calls.now

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        # popped: attention kernels must not see it. A tower that hands no arguments down has its own run
        self.call.run = run = kwargs.pop(RUN, self.tower.call.run)
        if run is None:
            refuse_replay(module)
            return args, kwargs
        for recorder in self.recorders.values():
            recorder.call.armed = True
        if self.previous_stage is not None:
            self.tower.check_ran(run, self.previous_stage)
            args, kwargs = self.tower.narrow(run, self, args, kwargs)
        self.call.rope = self.tower.rope(args, kwargs) if self.reads else None
        return args, kwargs

    def _after(self, module: nn.Module, args: tuple, output):
        run, self.call.run = self.call.run, None
        if run is None:
            return None
        states = {name: recorder.take() for name, recorder in self.recorders.items()}
        if self.call.rope is not None:
            states["position_embeddings"], self.call.rope = self.call.rope, None
        hidden_states = output[0] if isinstance(output, tuple) else output
        if self.index in self.tower.watched and self.index not in run.seen:  # not in a replay
            self.tower.observe(run, self.index, hidden_states, states)
        if not self.stage:
            return None
        states |= self.tower.of_next_layer(self.index, hidden_states)
        hidden_states = self.tower.prune(run, self.index, hidden_states, states)
        return (hidden_states, *output[1:]) if isinstance(output, tuple) else hidden_states


def refuse_replay(module: nn.Module) -> None:
    """Raise NotImplementedError in a checkpointed backward that cannot know what its forward dropped."""
    if torch._C._current_graph_task_id() != -1:
        raise NotImplementedError(
            f"the tower of {type(module).__name__} hands no arguments down to its layers, so gradient "
            "checkpointing cannot run them again; call gradient_checkpointing_disable() on the tower"
        )


@dataclass
class Recording:
    """What a projection gave in the forward of its layer that is in progress."""

    armed: bool = False
    output: Tensor | None = None


class Recorder:
    """Holds a projection's output from its forward to the end of its layer."""

    def __init__(self):
        self.module: nn.Module | None = None
        self.handle = None
        self.calls = PerThread(Recording)

    def attach(self, module: nn.Module) -> None:
        self.module = module
        self.handle = module.register_forward_hook(self._record)

    def release(self) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.module = self.handle = None
        self.calls = PerThread(Recording)

    @property
    def call(self) -> Recording:
        """This thread's."""
        return self.calls.now

    def take(self) -> Tensor:
        output, self.call.output, self.call.armed = self.call.output, None, False
        return output

    def _record(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self.call.armed:  # not when a checkpointed backward runs the inside of the layer again
            self.call.output = output
