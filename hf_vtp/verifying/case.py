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
from ..families.placeholder import LANGUAGE, PlaceholderModel
from ..names import parameters, with_pixels_named
from ..prompts.refusals import steps_over_masks
from ..pruning.stage import averages
from ..stats import VTPStats
from ..towers.features import Features
from ..towers.rows import find
from .encodings import Encoding, recording


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
        return self.tower.configs[max(self.tower.stages)].part("merger")[0]

    @property
    def drops(self) -> bool:
        """Whether kept tokens stay as they are."""
        return all(c.part("merger")[0] == "drop" for c in self.tower.configs.values()) and not self.weighs

    @property
    def weighs(self) -> bool:
        """Whether kept tokens become the mean of their group."""
        return self.tower.weighs

    @property
    def averages(self) -> bool:
        """Whether a group becomes the mean of its tokens, by their sizes, so that it need not be recorded."""
        return all(map(averages, self.tower.configs.values()))

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

    @property
    def language(self) -> nn.Module:
        """What reads the prompt's embeddings."""
        return find(self.inner, LANGUAGE)

    @property
    def recurrent(self) -> bool:
        """Whether the language model has layers in which masked columns leave traces."""
        return self.prompted and steps_over_masks(self.model.config.get_text_config())

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
            if len(layers) and not (self.drops or self.averages):
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
        """Which rows of each image's unpruned features the pruned model kept, ascending."""
        if self.marked:
            return [torch.nonzero(~rows.isnan().any(dim=-1))[:, 0] for rows in self.features(seen)]
        return self.named(seen)

    def named(self, seen: Seen) -> list[Tensor]:
        """Tokens of each of the tower's images that statistics and prefix tokens say are kept, ascending."""
        prefix = torch.arange(self.tower.num_prefix_tokens)
        return [torch.cat([prefix.to(keep), keep + len(prefix)]) for keep in seen.stats.keep_indices]

    def kept_features(self, seen: Seen) -> list[Tensor]:
        """The rows of each image that the pruned model kept, [K, D]; padding and marks left out.

        Raises ValueError where the marks are not where the statistics say.
        """
        if seen.served:
            return list(torch.cat(seen.served).split(seen.stats.num_kept))
        features, kept = self.features(seen), self.kept(seen)
        if not self.prompted:
            return [rows[: len(keep)] for rows, keep in zip(features, kept, strict=True)]
        gone = {len(rows) - n for rows, n in zip(features, seen.stats.num_tokens, strict=False)}
        if self.marked and len(features) == len(seen.stats.num_tokens) and len(gone) == 1:
            skipped = self.tower.num_prefix_tokens - gone.pop()  # what the language model does not read
            for rows, named in zip(kept, self.named(seen), strict=True):
                if not torch.equal(rows, named[skipped:].to(rows) - skipped):
                    raise ValueError(
                        "the tokens that came out of the tower are not those that its statistics name"
                    )
        return [rows[keep.to(rows.device)] for rows, keep in zip(features, kept, strict=True)]


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
