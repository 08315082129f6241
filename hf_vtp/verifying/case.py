"""One model with one batch of inputs: its runs, unpruned and pruned, and what is remembered of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..apply import applied, vtp, vtp_stats
from ..config import VTPConfig
from ..families import adapter_for
from ..families.placeholder import PlaceholderModel, features_of
from ..names import parameters, with_pixels_named
from ..pruning.stage import weighs
from ..stats import VTPStats
from ..towers.features import Features


@dataclass
class Encoding:
    """One call of a model's encoder of images or videos."""

    pixels: str  # the argument with pixels that the call was for
    token: str  # attribute of the config with the placeholder's id
    encoder: str  # the method's name
    args: tuple
    kwargs: dict
    features: list[Tensor]  # [T, D] of each image, a row for each placeholder, NaN where a token was dropped


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
    num_images: list[int] = field(default_factory=list)  # of the tower's, by encoding; tiles are several
    served: list[Tensor] = field(default_factory=list)  # [K, D] by encoding, what was kept after the features
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
        device = model.device
        self.inputs = {
            name: x.to(device) if isinstance(x, Tensor) and device.type != "meta" else x
            for name, x in with_pixels_named(inputs).items()
            if x is not None and name != "labels"  # of whole prompts, whose logits are not made
        }
        if all(name not in self.inputs for name in self.media):
            raise ValueError(f"the inputs hold no image; give what the processor returned, with {self.names}")

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
    def last_logits(self) -> dict[str, int]:
        """What asks a forward for the logits of the last column only."""
        return {"logits_to_keep": 1} if "logits_to_keep" in parameters(type(self.model).forward) else {}

    @property
    def decodes(self) -> bool:
        """Whether what comes out is a decoder's, whose columns are not those of the prompt."""
        return self.prompted and self.model.config.is_encoder_decoder

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
            layers = self.tower.layers
            if len(layers) and not (self.drops or self.weighs):
                for i in self.tower.stages:
                    kept = contents.setdefault(i, [])
                    stack.enter_context(after(layers[i], lambda *_, kept=kept: kept.append(_[-1])))
            seen = self.look(inputs)
        seen.stats, seen.contents = vtp_stats(self.model), contents
        if self.prompted:
            seen.num_images = [len(run.grids) for run in applied(self.model).runs]
        return seen

    def look(self, inputs: dict) -> Seen:
        """A forward of the model as it is now."""
        hidden, served = [], []
        with ExitStack() as stack:
            if self.prompted:
                encodings = stack.enter_context(recording(self.adapter, inputs, served))
                module = self.inner
            else:
                encodings, module = [], self.tower.layers[-1]
            stack.enter_context(after(module, lambda module, args, output: hidden.append(output)))
            output = self.model(**{**inputs, **self.last_logits}, return_dict=True)
        if not self.prompted:
            last = hidden[-1][0] if isinstance(hidden[-1], tuple) else hidden[-1]
            return Seen(flat(output), last_layer=last)
        outputs = {"hidden states": hidden[-1].last_hidden_state}
        if self.model is not self.inner:
            outputs["logits"] = output.logits
        return Seen(outputs, encodings, served=served)

    def features(self, seen: Seen) -> list[Tensor]:
        """Of each image what a language model is given, or else the last layer's output, [T, D]."""
        if not self.prompted:
            return list(seen.last_layer)
        return [rows for encoding in seen.encodings for rows in encoding.features]

    @property
    def marked(self) -> bool:
        """Whether features come with a row for each placeholder, NaN where the tower dropped a token."""
        return self.prompted and not isinstance(self.tower, Features)

    def kept(self, seen: Seen) -> list[Tensor]:
        """Which rows of each image's unpruned features the pruned model kept, ascending.

        Raises ValueError where the marks are not where the statistics say.
        """
        prefix = self.tower.num_prefix_tokens
        named = [torch.nn.functional.pad(keep + prefix, (prefix, 0)) for keep in seen.stats.keep_indices]
        for keep in named:
            keep[:prefix] = torch.arange(prefix, device=keep.device)
        if not self.marked:
            return named
        kept = [torch.nonzero(~rows.isnan().any(dim=-1))[:, 0] for rows in self.features(seen)]
        sizes = zip(self.features(seen), seen.stats.num_tokens, strict=False)
        if len(kept) == len(named) and len(gone := {len(rows) - n for rows, n in sizes}) == 1:
            skipped = prefix - gone.pop()  # prefix tokens that the language model does not read
            wanted = [keep[skipped:] - skipped for keep in named]
            if not all(torch.equal(a, b.to(a.device)) for a, b in zip(kept, wanted, strict=True)):
                raise ValueError(
                    "the tokens that came out of the tower are not those that its statistics name"
                )
        return kept

    def kept_features(self, seen: Seen) -> list[Tensor]:
        """The rows of each image that the pruned model kept, [K, D]; padding and marks left out."""
        if seen.served:
            return list(torch.cat(seen.served).split(seen.stats.num_kept))
        pairs = zip(self.features(seen), self.kept(seen), strict=True)
        if not self.prompted:
            return [rows[: len(keep)] for rows, keep in pairs]
        return [rows[keep.to(rows.device)] for rows, keep in pairs]


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
def recording(adapter: PlaceholderModel, inputs: dict, served: list[Tensor]) -> Iterator[list[Encoding]]:
    """The calls of a model's encoders inside a `with` block, in order.

    What a forward is handed in place of an encoder's features goes to `served`.
    """
    inner, encoders, calls = adapter.inner, adapter.encoders, []
    given = [pixels for pixels in encoders if inputs.get(pixels) is not None]

    def recorder(name: str) -> Callable:
        original = getattr(inner, name)
        order = [pixels for pixels in given if encoders[pixels] == name]

        @functools.wraps(original)
        def call(*args, **kwargs):
            replaced = bool(getattr(original, "waiting", ()))  # the forward asks, after the encoder was run
            output = original(*args, **kwargs)
            if replaced:
                served.append(torch.cat(features_of(output)))
                return output
            pixels = order.pop(0) if len(order) > 1 else order[0]
            rows = adapter.images_of(pixels, output, inputs)[0]
            calls.append(Encoding(pixels, adapter.media[pixels], name, args, kwargs, rows))
            return output

        return call

    own = {name: vars(inner)[name] for name in encoders.values() if name in vars(inner)}
    vars(inner).update({name: recorder(name) for name in encoders.values()})
    try:
        yield calls
    finally:
        for name in encoders.values():
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
