"""Models that put image features in place of placeholders: pruned in the tower, or after the features."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import OUTPUT, VTPConfig
from ..names import cache_name, parameters
from ..per_thread import PerThread
from ..prompts.callbacks import MERGE, Generate, MergeLists
from ..prompts.encoded import Encoded
from ..prompts.forward import DEEP_ARGUMENTS, Call
from ..prompts.generate import Generates
from ..prompts.positions import SECONDS
from ..prompts.weights import Weights
from ..prompts.windows import Windows
from ..pruning.run import Run
from ..pruning.stage import needs
from ..stats import VTPStats, collect, joined
from ..towers.features import Features
from ..towers.rows import find
from ..towers.tower import Tower
from .after_features import ENCODED, ENCODER, PIXELS, AfterFeatures, as_fields
from .base import Adapter
from .projection import output_layer, projected, waits_for_features
from .read_states import last_layer_read
from .table import FamilyRow, tower_row

TOKENS = {  # attributes of configs with a placeholder's id, by what stands for it
    "image": ("image_token_id", "image_token_index"),
    "video": ("video_token_id", "video_token_index"),
}
STRATEGY = "vision_feature_select_strategy"
LANGUAGE = "language_model|model|text_model"  # paths to what reads features, from where they are put in
NOT_OF_PIXELS = ("kwargs", "return_dict", "output_hidden_states", "output_attentions")  # of encoders
HANDED_ON = ("image_sizes",)  # to encoders that take any keyword argument


def merging(model: nn.Module) -> nn.Module:
    """The module of a model that puts features into the prompt."""
    inner = getattr(model, "model", None)
    return inner if hasattr(inner, ENCODER) else model


def media_of(model: nn.Module) -> dict[str, tuple[str, str]]:
    """By argument with pixels, the config's attribute with the placeholder's id and the encoder's name."""
    inner, found = merging(model), {}
    for medium, attributes in TOKENS.items():
        named = [name for name in attributes if getattr(model.config, name, None) is not None]
        encoders = [name for name in (f"get_{medium}_features", ENCODER) if hasattr(inner, name)]
        if named and encoders and PIXELS[medium] in parameters(type(inner).forward):
            found[PIXELS[medium]] = (named[0], encoders[0])  # some read videos as images
    return found


def has_placeholders(model: nn.Module) -> bool:
    """Whether a model puts image features in place of placeholders."""
    return hasattr(model, "config") and "pixel_values" in media_of(model)


class PlaceholderModel(AfterFeatures, Generates, Adapter):
    """A model with a language model that reads image features among its embeddings.

    Where its row says how its tower is laid out, tokens leave in there; rows that the projector makes of
    dropped tokens are NaN, so that Transformers' own code between projector and prompt runs unmodified.
    Without a row tokens leave after that code.
    """

    reads_text = True

    def __init__(self, row: FamilyRow, model: nn.Module, config: VTPConfig):
        self.row, self.first_position = row, row.first_position
        self.inner = merging(model)
        found = media_of(model)
        self.media = {pixels: token for pixels, (token, _) in found.items()}
        if row.video_token and PIXELS["video"] in found:
            self.media[PIXELS["video"]] = row.video_token
        self.encoders = {pixels: encoder for pixels, (_, encoder) in found.items()}
        self.taken = {e: encoder_arguments(self.inner, e) for e in self.encoders.values()}
        taken = {name for names in self.taken.values() for name in names}
        self.pixel_arguments = (*sorted(taken), *self.rope_arguments, SECONDS, *ENCODED)
        self.cache_name = cache_name(self.inner)
        self.language = find(self.inner, LANGUAGE)
        self.windows, self.weights, self.calls = Windows(self), Weights(self), PerThread(Call)
        self.runs: list[Run] = []
        self.counted: list[str] = []
        super().__init__(model, config)
        self.weights.check()

    def make_tower(self, model: nn.Module, config: VTPConfig) -> Tower:
        cell = self.row.cell if isinstance(self.row.cell, int) else self.row.cell(model.config)
        # which prompt a picture in the tower belongs to must be known there
        unknown = "text" in needs(config) and (cell > 1 or self.row.tiles) and config.layer in (None, OUTPUT)
        unknown = unknown or waits_for_features(self.inner, self.row, config, cell)
        if "text" in needs(config) and cell > 1 and not unknown and self.row.tower:
            raise ValueError(
                f"method {config.method!r} compares tokens with the prompt, and a token of this tower is one "
                "of the language model only in a cell with its neighbours; leave out layer, and tokens "
                "leave after the features"
            )
        if not self.row.tower or unknown:
            tower = Features(self.inner, config)
            tower.to_language = self.project
            return tower
        module = find(self.inner, self.row.tower)
        row = tower_row(module)
        layers = row.depth(module)
        depth, what = last_layer_read(self, model.config, layers)
        stages = config.stages(depth, what, has_output=True)
        options = {"last": config.for_language(), **({"cell": cell} if cell > 1 else {})}
        tower = row.make(module, config.before_language(), stages, **options)
        if cell == 1 and row.row_wise:
            tower.to_language = self.project
            tower.output_layer = output_layer(model.config, depth)
        return tower

    def attach(self) -> None:
        super().attach()
        self.stand_in()
        self.tower.handles += [
            self.inner.register_forward_pre_hook(self._before, with_kwargs=True),
            self.inner.register_forward_hook(self._after),
            *self.windows.attach(),
            *self.weights.attach(),  # after the windows, which read masks of zeros
        ]
        if self.language is not None and DEEP_ARGUMENTS[0] in parameters(type(self.language).forward):
            hook = self.language.register_forward_pre_hook(self._before_language, with_kwargs=True)
            self.tower.handles.append(hook)
        if self.row.projector and not self.after_features:
            self.tower.handles += self.tower.restore(find(self.inner, self.row.projector))
        if hasattr(type(self.model), "generate"):
            self.model.generate = Generate(self)
            setattr(self.model, MERGE, MergeLists(self))

    def detach(self) -> None:
        super().detach()
        self.stand_back()
        for name in ("generate", MERGE):
            vars(self.model).pop(name, None)
        self.calls = PerThread(Call)

    def refuse(self, arguments: dict) -> None:
        super().refuse(arguments)
        if self.row.reads_ids and arguments.get("inputs_embeds") is not None:
            raise NotImplementedError(
                f"{type(self.model).__name__} makes more of input_ids than their embeddings; pass input_ids"
            )
        if not self.after_features:
            last_layer_read(self, self.model.config, len(self.tower.layers), arguments)

    def encode(self, arguments: dict) -> dict[str, Encoded]:
        encoded, runs = {}, []
        for name, encoder in self.encoders.items():
            if arguments.get(name) is None:
                continue
            if self.tower.call.text is not None:
                self.tower.call.text = replace(self.tower.call.text, medium=name)
            given = {
                k: self.on_device(arguments[k]) for k in self.taken[encoder] if arguments.get(k) is not None
            }
            self.tower.expect(name, arguments)
            pixels = self.on_device(arguments[name])  # by position: its name differs between releases
            function = getattr(self.inner, encoder)
            output = function(pixels, **given, **as_fields(function))
            encoded[name] = self.weights.sized(self.kept_of(name, output, arguments), arguments)
            runs.append(self.tower.call.last)
        self.runs = runs
        return encoded

    def kept_of(self, name: str, output: object, arguments: dict) -> Encoded:
        """What stays of the features of each image, [T, D]; in the tower dropped ones are NaN."""
        if self.after_features:
            return self.pruned(name, output, arguments)
        rows = self.images_of(name, output, arguments)[0]
        run = self.tower.call.last
        if run.overflow is not None and bool(run.overflow):
            raise RuntimeError(
                "image features came out as NaN before anything was marked as dropped; run the model in a "
                "wider dtype (bfloat16 or float32)"
            )
        kept = ~torch.cat([row.isnan().any(dim=-1) for row in rows])
        # two waits for the device, however many images there are, and no copy of all rows
        starts = boundaries(map(len, rows))
        before = torch.nn.functional.pad(kept.cumsum(dim=0), (1, 0))[starts].tolist()
        counts = [last - first for first, last in zip(before, before[1:], strict=False)]
        index = torch.nonzero(kept)[:, 0].split(counts)
        parts = zip(rows, index, starts, strict=False)
        return Encoded.of(output, [row[own - start] for row, own, start in parts], kept)

    def tokens_per_image(self, arguments: dict) -> dict[str, list[int]]:
        if self.after_features or self.row.tiles:
            return {}
        found = {}
        for name in self.media:
            grids = self.tower.input_grids(name, arguments)
            if grids is not None:
                rows = self.prefix_rows(arguments)
                found[name] = [rows + count for count in self.tower.counts(grids)]
        return found

    def prefix_rows(self, arguments: dict) -> int:
        """Prefix tokens that go to the language model: all but the first, or all where somebody says so.

        Raises ValueError where the first token would be skipped and is a patch.
        """
        strategy = arguments.get(STRATEGY) or getattr(self.model.config, STRATEGY, None)
        prefix = self.tower.num_prefix_tokens
        if strategy == "default" and prefix == 0:
            raise ValueError(
                f"{STRATEGY}='default' skips the first patch of a tower without a [CLS] token; use 'full'"
            )
        return prefix if strategy == "full" else max(prefix - 1, 0)

    def project(self, content: Tensor) -> Tensor:
        """A tower's tokens [B, N, M·D], or features, in the language model's space, [B, N, D']."""
        if self.after_features:
            return content
        return projected(self.tower, find(self.inner, self.row.projector), content, self.model.config)

    def on_device(self, x: object) -> object:
        """An argument of an encoder on the tower's device, where `generate` brings it too."""
        device = next(self.tower.module.parameters()).device
        moves = isinstance(x, Tensor) and device.type != "meta"
        return x.to(device) if moves else x

    def stats(self) -> VTPStats:
        """Of the images, then of the videos of the last call."""
        if self.runs and self.runs[-1] is self.tower.last:
            return joined([collect(run) for run in self.runs])
        return super().stats()

    def __getstate__(self) -> dict:
        return {**vars(self), "runs": [], "counted": []}  # what a forward decided is no part of a model


def boundaries(lengths: Iterable[int]) -> list[int]:
    """Where each of several parts begins, and where the last one ends."""
    return [0, *itertools.accumulate(lengths)]


def encoder_arguments(inner: nn.Module, encoder: str) -> list[str]:
    """Arguments of a model's forward that it hands on to an encoder, beside the pixels."""
    function, of_forward = getattr(type(inner), encoder), parameters(type(inner).forward)
    names = [name for name in parameters(function)[2:] if name not in NOT_OF_PIXELS]
    return names + [name for name in HANDED_ON if name in of_forward and name not in names]
