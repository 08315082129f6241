"""Vision towers alone: their config and class, images as they take them, and one embedding of each image."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoModel, BaseImageProcessor, PreTrainedConfig, PreTrainedModel

from ..families.table import find_tower, list_families, tower_row
from ..names import parameters
from .bench import cli
from .bench.cli import UsageError, first_sentence
from .classifiers import classifier_class
from .image_processors import default_image_processor, load_image_processor
from .loading import load, without_code
from .models import ANSWERING, load_config, random_model

INSTEAD = "give --weights random for speed alone, or a local folder with --model"
POOLING = ("pooler.", "head.")  # weights that checkpoints of classifiers may lack


@dataclass(frozen=True)
class LoadedTower:
    """A vision tower in eval mode, and whether what it pools was trained."""

    model: PreTrainedModel
    pools: bool = True

    def embed(self, inputs: dict[str, Tensor], model: Callable | None = None) -> Tensor:
        """One embedding of each image, [B, D], by this tower or by a compiled copy of it.

        `model` takes the same arguments. See `embedding`.
        """
        return embedding(self.model, inputs, model, self.pools)


def embedding(
    model: nn.Module, inputs: dict[str, Tensor], run: Callable | None = None, pools: bool = True
) -> Tensor:
    """One embedding of each image, [B, D], by a vision model or by `run`, a compiled copy of it.

    A model of images and texts has its own. Otherwise it is the output's `image_embeds` or `logits` where it
    has them, else its `pooler_output`, else (also where the weights that pool were not trained: `pools` is
    False) the [CLS] token, or without one the mean over the patches.
    """
    if hasattr(model, "get_image_features"):
        taken = parameters(model.get_image_features)
        own = {name: x for name, x in inputs.items() if name in taken}  # without those of a text
        return model.get_image_features(**own, return_dict=True).pooler_output
    output = (run or model)(**inputs)
    for name in ("image_embeds", "logits", *(["pooler_output"] if pools else [])):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    row = tower_row(model)
    prefix = row.num_prefix_tokens(model)
    states = output.last_hidden_state
    return states[:, 0] if row.cls and prefix else states[:, prefix:].mean(dim=1)


def is_tower(config: PreTrainedConfig) -> bool:
    """Whether a model of this config has a vision tower that can be pruned, and writes no text."""
    return config.model_type in roots() and config.model_type not in ANSWERING


def roots() -> dict[str, str]:
    """By model_type of a model without a language model, its tower's."""
    return {name: row["tower"] for name, row in list_families().items() if row["kind"] == "vision"}


def tower_config(name: str, weights: str = "pretrained") -> PreTrainedConfig:
    """The config of the vision tower of a model in a folder, the local cache or the Hub, or of a geometry.

    Raises UsageError for what cannot be had, or has no tower that can be pruned alone.
    """
    config = load_config(name, weights, INSTEAD)
    if not is_tower(config):
        instead = "measure it with bench-vlm" if config.model_type in ANSWERING else "choose another model"
        raise UsageError(
            f"{name} is of model_type {config.model_type!r}, which has no vision tower that is pruned alone; "
            f"{instead}, or one of {', '.join(sorted(roots()))}"
        )
    if config.model_type == roots()[config.model_type]:
        return config
    if hasattr(config, "projection_dim"):  # a model of two towers projects by its own
        config.vision_config.projection_dim = config.projection_dim
    return config.vision_config


def tower_classes(config: PreTrainedConfig) -> list[type]:
    """The classes that a tower of this config may be loaded as: first the one that projects what it pools."""
    stem = type(config).__name__.removesuffix("Config")
    named = [getattr(transformers, f"{stem}{ending}", None) for ending in ("ModelWithProjection", "Model")]
    return [kind for kind in named if kind is not None] or [AutoModel]


def load_tower(
    name: str, weights: str, dtype: torch.dtype, attention: str | None, device: torch.device
) -> LoadedTower:
    """The vision tower of a model, of the first of its classes whose weights are all there.

    `weights` is "pretrained" (a folder, the local cache, the Hub) or "random" (no download: a geometry by
    name or a folder's config.json; seed torch before). Raises UsageError for what cannot be had.
    """
    config = tower_config(name, weights)
    kinds = tower_classes(config)
    if weights == "pretrained":
        loaded = _pretrained(name, config, kinds, dtype)
    else:
        loaded = LoadedTower(random_model(name, config, kinds[0], dtype, device))
    if attention:
        cli.set_attention(loaded.model, attention, dtype, device)
    loaded.model.to(device).eval()
    return loaded


def load_embedder(name: str, weights: str, dtype: torch.dtype, device: str | torch.device) -> LoadedTower:
    """A vision model with all that makes its embedding: with its text tower or its classifier, else alone.

    Raises UsageError for what cannot be had.
    """
    config = load_config(name, weights, INSTEAD)
    kind = whole_class(config) if is_tower(config) and weights == "pretrained" else None
    if kind is None:
        return load_tower(name, weights, dtype, None, device)
    loader = partial(kind.from_pretrained, config=config, dtype=dtype, weights_only=True)
    model, report = load(name, partial(loader, output_loading_info=True), INSTEAD)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("text_"))
    if missing:
        raise UsageError(f"{name} holds no trained {', '.join(missing[:3])}; {INSTEAD}")
    return LoadedTower(model.to(device).eval())


def whole_class(config: PreTrainedConfig) -> type | None:
    """The class of a classifier, where the config names one, or of a model with a text tower; else None."""
    classifier = classifier_class(config)
    if classifier is not None:
        return classifier
    alone = config.model_type == roots()[config.model_type]
    return None if alone or type(config) not in MODEL_MAPPING else MODEL_MAPPING[type(config)]


def _pretrained(name: str, config: PreTrainedConfig, kinds: list[type], dtype: torch.dtype) -> LoadedTower:
    options = {"weights_only": True, "output_loading_info": True}
    for kind in kinds:
        loader = partial(kind.from_pretrained, config=config, dtype=dtype, **options)
        model, report = load(name, loader, INSTEAD)
        missing = sorted(report["missing_keys"])
        if not missing:
            return LoadedTower(model)
    if all(key.startswith(POOLING) for key in missing):
        return LoadedTower(model, pools=False)
    # not every class of a tower finds its weights within those of a model of two towers
    whole, report = load(name, without_code(AutoModel, dtype=dtype, **options), INSTEAD)
    tower = find_tower(whole)
    within = {f"{at}." for at, module in whole.named_modules() if module is tower}
    if tower is not whole and not any(key.startswith(tuple(within)) for key in report["missing_keys"]):
        return LoadedTower(tower)
    raise UsageError(f"{name} holds no trained {', '.join(missing[:3])}, and so no vision tower; {INSTEAD}")


def images_for(
    tower: LoadedTower, name: str, weights: str, images: Iterable[Image.Image]
) -> dict[str, Tensor]:
    """What the image processor makes of images, on the CPU, numbers with a fraction in the model's dtype.

    Raises UsageError if there is no image, or if the tower does not take what the processor makes.
    """
    model = tower.model
    processor = processor_of(name, weights, model.config)
    taken = inspect.signature(type(model).forward).parameters
    made = []
    for image in images:
        one = processor(images=[image], return_tensors="pt")
        dtypes = {key: model.dtype if x.is_floating_point() else x.dtype for key, x in one.items()}
        made.append({key: x.to(dtypes[key]) for key, x in one.items() if key in taken})
    if not made:
        raise UsageError("no image is left to measure on; give a folder of images with --images")
    shape = "x".join(map(str, made[0]["pixel_values"].shape[-2:]))
    try:
        with torch.inference_mode():
            tower.embed({key: x.to(model.device) for key, x in made[0].items()})
        return {key: torch.cat([one[key] for one in made]) for key in made[0]}
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"the image processor of {name} makes {shape}, which its model does not take: "
            f"{first_sentence(error)}"
        ) from None


def processor_of(name: str, weights: str, config: PreTrainedConfig) -> BaseImageProcessor:
    """The checkpoint's own image processor, else that of its model_type at the size in the tower's config.

    Raises UsageError if its own is broken.
    """
    files = [Path(name) / file for file in ("preprocessor_config.json", "processor_config.json")]
    own = any(file.is_file() for file in files)
    if own or (weights == "pretrained" and not Path(name).is_dir()):
        try:
            return load(name, load_image_processor, INSTEAD)
        except UsageError as error:
            if own:
                raise
            print(f"the standard preprocessing of its model_type is used: {error}", file=sys.stderr)
        except ImportError as error:
            raise UsageError(f"the image processor of {name}: {first_sentence(error)}") from None
    of_tower = roots().get(config.model_type)
    around = [root for root, of in roots().items() if of == of_tower]
    return default_image_processor(getattr(config, "vision_config", config), [config.model_type, *around])
