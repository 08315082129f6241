"""Where a model's tower is not known, tokens leave after its encoders, and forwards ask those as ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..names import parameters
from ..prompts.condense import Memory
from ..prompts.encoded import DEEPSTACK, Encoded, Reading
from ..prompts.encoders import Encoder, in_form
from ..prompts.generate import Generates
from ..pruning.run import Run
from ..towers.feature_grids import images_of
from ..towers.features import Features
from ..towers.rows import Grid
from ..towers.tower import Tower
from .first_use import FirstUse
from .table import FamilyRow, has_row

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
ENCODER = "get_image_features"
ENCODED = ("mm_encoder_outputs",)  # by which newer releases hand over features


class AfterFeatures(Generates):
    """The part of a language-model family's adapter that prunes after the features.

    The prompt is condensed as in every family; but a model of which nothing is known may read more of ids
    than their embeddings, so its own forward embeds them and puts the features in, which are fewer.
    """

    row: FamilyRow
    tower: Tower
    inner: nn.Module
    encoders: dict[str, str]  # by argument with pixels, the name of its encoder
    runs: list[Run]
    counted: list[str] = []  # arguments whose features were counted since a forward ended

    def read(self, arguments: dict, memory: Memory | None, generating: bool = False) -> Reading:
        reading = super().read(arguments, memory, generating)
        if memory is None and not has_row(self.model):
            FirstUse(self, arguments, reading, generating).check()
        return reading

    @property
    def after_features(self) -> bool:
        """Whether tokens leave after the encoders, whatever is in those."""
        return isinstance(self.tower, Features)

    @property
    def serves(self) -> bool:
        """Whether the model's own forward puts kept features in, asking its encoders for them."""
        return self.after_features or self.row.reads_ids

    def stand_in(self) -> None:
        """Have forwards get kept features where they ask the model's encoders."""
        if self.serves:
            vars(self.inner).update({name: Encoder(self, name) for name in self.encoders.values()})

    def stand_back(self) -> None:
        """The inverse."""
        for name in self.encoders.values() if self.serves else ():
            vars(self.inner).pop(name, None)

    def pruned(self, name: str, output: object, arguments: dict) -> Encoded:
        """What the stage makes of what an encoder returned for the pixels `name` of a call."""
        rows, grids = self.images_of(name, output, arguments)
        where = self.placeholders(arguments.get("input_ids"), arguments.get("inputs_embeds"))[name]
        self.check_placeholders(name, int(where.sum()), sum(map(len, rows)))
        if "text" in self.tower.needs:
            around = self.tower.call.text_around({name: [len(row) for row in rows]})
            self.tower.call.text = replace(around, medium=name)
        return Encoded.of(output, *self.tower.keep(rows, grids))

    def images_of(self, name: str, output: object, arguments: dict) -> tuple[list[Tensor], list[Grid]]:
        """An encoder's features as rows [T, D] of each image, and the grids that a stage after them goes by.

        `arguments` are those of the call.
        """
        thw = arguments.get("video_grid_thw" if name == PIXELS["video"] else "image_grid_thw")
        if not self.after_features:
            rows = features_of(output)
            if len(rows) == 1 and thw is not None and len(thw) > 1:  # as older releases return them
                patches = thw.prod(dim=-1)
                rows = list(rows[0].split((patches * len(rows[0]) // patches.sum()).tolist()))
            return rows, []
        ids, embeds = arguments.get("input_ids"), arguments.get("inputs_embeds")
        in_prompts = []
        if ids is not None or embeds is not None:
            in_prompts = self.placeholders(ids, embeds)[name].sum(dim=-1).tolist()
        return images_of(in_rows(output), in_prompts, arguments[name], thw)

    def count(self, encoder: str, output: object, arguments: dict) -> None:
        """Write down what a call of an encoder gave where nothing leaves and no stage comes to see it."""
        if not self.idle() or not self.after_features:
            return
        names = [name for name in self.media if self.encoders[name] == encoder]
        name = next((name for name in names if name not in self.counted), names[0])
        if not self.counted or name in self.counted:  # the first of a forward
            self.counted, self.runs = [], []
        self.counted.append(name)
        self.tower.keep(*self.images_of(name, output, {name: next(iter(arguments.values())), **arguments}))
        self.runs.append(self.tower.call.last)

    def with_features(self, ids: Tensor, rows: Tensor, pending: Reading) -> dict:
        if not self.serves:
            return super().with_features(ids, rows, pending)
        self.call.serve, given, first = {}, dict(pending.arguments), 0
        for name, part in pending.encoded.items():
            last = first + sum(map(len, part.output.pooler_output))
            own = rows[(rows >= first) & (rows < last)]
            first = last
            if not len(own):
                given.pop(name)
                continue
            features = in_form(part.given, pending.features[own.to(pending.features.device)])
            if part.deep:
                deep = [x[own.to(x.device)] for x in pending.deep]
                split = not isinstance(getattr(part.given, DEEPSTACK)[0], Tensor)
                setattr(features, DEEPSTACK, [(x,) if split else x for x in deep])
            self.call.serve.setdefault(self.encoders[name], []).append(features)
        tokens = [getattr(self.model.config, attribute) for attribute in self.media.values()]
        filler = next(i for i in range(len(tokens) + 1) if i not in tokens)
        stray = (rows.to(ids.device) < 0) & torch.isin(ids, ids.new_tensor(tokens))  # stands for padding
        encoded = {name: None for name in ENCODED if name in parameters(type(self.inner).forward)}
        return {**given, **encoded, "input_ids": ids.masked_fill(stray, filler)}

    def ended(self, module: nn.Module) -> None:
        """Raise RuntimeError if a forward went on without the features it was to get."""
        self.counted = []
        if any(self.call.serve.values()):
            raise RuntimeError(
                f"the forward of {type(module).__name__} does not get its features from {ENCODER}, so they "
                "cannot be pruned; call remove_vtp(model)"
            )


def as_fields(function: Callable) -> dict:
    """The argument that has an encoder return fields and no tuple, where it takes one."""
    names = parameters(function)
    return {"return_dict": True} if "return_dict" in names or "kwargs" in names else {}


def in_rows(output: object) -> Tensor | list[Tensor]:
    """The features among what an encoder returned; raises NotImplementedError where there are none."""
    features = getattr(output, "pooler_output", output)
    if not isinstance(features, Tensor | list | tuple) or not len(features):
        raise NotImplementedError(
            f"{ENCODER} of this model returns no features that stand in its prompt, so they cannot be "
            "pruned; call remove_vtp(model)"
        )
    return features


def features_of(output: object) -> list[Tensor]:
    """What an encoder returned as rows [T, D] of each image."""
    features = in_rows(output)
    if isinstance(features, Tensor):
        return [features] if features.dim() == 2 else list(features.flatten(1, -2))
    return [row.flatten(0, -2) for row in features]
