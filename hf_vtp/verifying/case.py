"""One model with one batch of inputs: its runs, unpruned and pruned, and what is remembered of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..apply import vtp, vtp_stats
from ..config import VTPConfig
from ..families import adapter_for
from ..families.placeholder import PlaceholderModel
from ..names import parameters
from ..pruning.stage import weighs
from ..stats import VTPStats


@dataclass
class Encoding:
    """One call of a model's encoder of images or videos."""

    token: str  # attribute of the config with the placeholder's id
    encoder: str  # the method's name
    args: tuple
    kwargs: dict
    features: list[Tensor]  # [P + N, D] of each image, as the call returned them


@dataclass
class Seen:
    """What one forward gave.

    `outputs` has the tensors that are compared, by name: of a model with a language model the last hidden
    states [B, n, D] and the logits of the last column, of another whatever it returns.
    """

    outputs: dict[str, Tensor]
    encodings: list[Encoding] = field(default_factory=list)
    last_layer: Tensor | None = None  # [B, P + N, D] of a tower without a language model
    stats: VTPStats | None = None
    # by stage, the output of its layer in each run of the tower; only where it cannot be worked out
    contents: dict[int, list[Tensor]] = field(default_factory=dict)


class Case:
    """The model at hand, inside its wrappers, with the inputs of one call.

    Raises ValueError or TypeError as apply_vtp does, and ValueError for inputs without an image.
    """

    def __init__(self, model: nn.Module, inputs: dict, config: VTPConfig, max_new_tokens: int = 8):
        self.model, self.config, self.max_new_tokens = model, config, max_new_tokens
        self.adapter = adapter_for(model)(model, config)  # never attached: it tells where things are
        self.tower = self.adapter.tower
        self.prompted = isinstance(self.adapter, PlaceholderModel)
        self.media = self.adapter.media if self.prompted else {"pixel_values": ""}
        if all(inputs.get(name) is None for name in self.media):
            raise ValueError(f"the inputs hold no image; give what the processor returned, with {self.names}")
        device = model.device
        self.inputs = {
            name: x.to(device) if isinstance(x, Tensor) and device.type != "meta" else x
            for name, x in inputs.items()
            if x is not None and name != "labels"  # of whole prompts, whose logits are not made
        }

    @property
    def names(self) -> str:
        return " or ".join(self.media)

    @property
    def merger(self) -> str:
        return self.config.part("merger")[0]

    @property
    def drops(self) -> bool:
        """Whether kept tokens stay as they are."""
        return self.merger == "drop" and not weighs(self.config)

    @property
    def weighs(self) -> bool:
        """Whether kept tokens become the mean of their group."""
        return weighs(self.config)

    @property
    def inner(self) -> nn.Module:
        """What puts image features into the prompt."""
        return self.adapter.inner

    @functools.cached_property
    def baseline(self) -> Seen:
        """A forward of the unpruned model."""
        return self.look(self.inputs)

    @functools.cached_property
    def pruned(self) -> Seen:
        """A forward of the pruned model."""
        with vtp(self.model, self.config):
            return self.look_pruned(self.inputs)

    def look_pruned(self, inputs: dict) -> Seen:
        """A forward of the model that is pruned now, with its statistics."""
        contents: dict[int, list[Tensor]] = {}
        with ExitStack() as stack:
            if not (self.drops or self.weighs):
                layers = self.tower.layers
                for i in self.tower.stages:
                    kept = contents.setdefault(i, [])
                    stack.enter_context(after(layers[i], lambda *_, kept=kept: kept.append(_[-1])))
            seen = self.look(inputs)
        seen.stats, seen.contents = vtp_stats(self.model), contents
        return seen

    def look(self, inputs: dict) -> Seen:
        """A forward of the model as it is now."""
        told = {"logits_to_keep": 1} if "logits_to_keep" in parameters(type(self.model).forward) else {}
        hidden: list = []
        with ExitStack() as stack:
            if self.prompted:
                encodings = stack.enter_context(recording(self.inner, self.media))
                module = self.inner
            else:
                encodings, module = [], self.tower.layers[-1]
            stack.enter_context(after(module, lambda module, args, output: hidden.append(output)))
            output = self.model(**{**inputs, **told}, return_dict=True)
        if not self.prompted:
            last = hidden[-1][0] if isinstance(hidden[-1], tuple) else hidden[-1]
            return Seen(flat(output), last_layer=last)
        outputs = {"hidden states": hidden[-1].last_hidden_state}
        if self.model is not self.inner:
            outputs["logits"] = output.logits
        return Seen(outputs, encodings)

    def features(self, seen: Seen) -> list[Tensor]:
        """Of each image what a language model is given, or else the last layer's output, [P + N, D]."""
        if not self.prompted:
            return list(seen.last_layer)
        return [rows for encoding in seen.encodings for rows in encoding.features]

    def kept(self, seen: Seen) -> list[Tensor]:
        """Which rows of each image's unpruned features the pruned model says that it kept, ascending."""
        kept = []
        for n, keep, rows in zip(
            seen.stats.num_tokens, seen.stats.keep_indices, self.features(self.baseline), strict=True
        ):
            # of a language model's rows those of prefix tokens; a tower's may end in padding
            prefix = len(rows) - n if self.prompted else self.tower.num_prefix_tokens
            kept.append(torch.cat([torch.arange(prefix, device=keep.device), keep + prefix]))
        return kept

    def kept_features(self, seen: Seen) -> list[Tensor]:
        """The rows of each image that the pruned model kept, [P + K, D]; padding and marks left out.

        Raises ValueError where the marks are not where the statistics say.
        """
        found = []
        for rows, keep, whole in zip(
            self.features(seen), self.kept(seen), self.features(self.baseline), strict=True
        ):
            marked = rows.isnan().any(dim=-1)
            if len(rows) != len(whole) or not marked.any():
                found.append(rows[: len(keep)])
                continue
            there = torch.nonzero(~marked)[:, 0]
            if not torch.equal(there, keep.to(there.device)):
                raise ValueError(
                    "the tokens that came out of the tower are not those that its statistics name"
                )
            found.append(rows[there])
        return found


@contextmanager
def after(module: nn.Module, hook: Callable) -> Iterator[None]:
    """A forward hook on a module inside a `with` block; it comes after those that are there."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def before(module: nn.Module, hook: Callable) -> Iterator[None]:
    """A forward pre-hook with keyword arguments on a module inside a `with` block."""
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def recording(inner: nn.Module, media: dict[str, str]) -> Iterator[list[Encoding]]:
    """The calls of a model's encoders inside a `with` block, in order."""
    calls: list[Encoding] = []

    def recorder(token: str, name: str) -> Callable:
        original = getattr(inner, name)

        @functools.wraps(original)
        def call(*args, **kwargs):
            output = original(*args, **kwargs)
            calls.append(Encoding(token, name, args, kwargs, list(output.pooler_output)))
            return output

        return call

    names = {token: f"get_{token.removesuffix('_token_id')}_features" for token in media.values()}
    names = {token: name for token, name in names.items() if hasattr(inner, name)}
    own = {name: vars(inner)[name] for name in names.values() if name in vars(inner)}
    vars(inner).update({name: recorder(token, name) for token, name in names.items()})
    try:
        yield calls
    finally:
        for name in names.values():
            vars(inner).pop(name, None)
        vars(inner).update(own)


def flat(output: object, path: str = "") -> dict[str, Tensor]:
    """Every tensor of a model's output by its path of field names."""
    if isinstance(output, Tensor):
        return {path: output}
    items = output.items() if hasattr(output, "items") else ()
    if isinstance(output, tuple | list):
        items = enumerate(output)
    found: dict[str, Tensor] = {}
    for name, value in items:
        found |= flat(value, f"{path}.{name}" if path else str(name))
    return found
