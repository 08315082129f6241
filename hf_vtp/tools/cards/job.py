"""From a model's name to what is pushed: its pruning config, checked on the model, and measurements of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, PreTrainedConfig

from ...apply import apply_vtp
from ...config import VTPConfig
from ...files import replacing
from .. import child
from ..bench import clip
from ..bench.cli import UsageError
from ..bench.geometry import known, named_config
from .hub import load, without_code
from .kinds import TASKS

INSTEAD = "give --weights random for a geometry known by name, or a local folder"
FAMILIES = {"clip_vision_model": "clip"}  # of model types that are not their family's name


def model_config(name: str, weights: str) -> PreTrainedConfig:
    """The config of a model on the Hub, in a folder, or with random weights of a geometry known by name."""
    if weights == "random" and not os.path.isdir(name):
        if name in clip.GEOMETRIES:
            return CLIPVisionConfig(**clip.GEOMETRIES[name])
        found = named_config(name)
        if found is None:
            names = ", ".join([*clip.GEOMETRIES, *known()])
            raise UsageError(f"no geometry is known for {name}; choose a folder or {names}")
        return found
    return load(name, without_code(AutoConfig), INSTEAD)


def pruning(config: PreTrainedConfig, base_model: str | None, **fields) -> VTPConfig:
    """The config that apply_vtp makes of these fields on such a model, without its weights.

    Raises UsageError for a family that cannot be pruned and for whatever apply_vtp refuses.
    """
    try:
        with torch.device("meta"):
            model = apply_vtp(AutoModel.from_config(config), base_model_name_or_path=base_model, **fields)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    return VTPConfig(**model.config.vtp_config)


def family_of(config: PreTrainedConfig) -> str:
    """The family that results and cards of such a model are of; raises UsageError where there is none."""
    family = FAMILIES.get(config.model_type, config.model_type)
    if family not in TASKS:
        raise UsageError(
            f"no card can be made for model_type {config.model_type!r}; choose a model of {', '.join(TASKS)}"
        )
    return family


def measure(family: str, model: str, folder: Path, arguments: list[str]) -> Path:
    """Run the family's benchmark in a process of its own; the JSON file it wrote into `folder`.

    It runs in a folder of its own, so that nothing of a run that was killed is in the way of the next. A
    model in a local folder goes by the folder's name there: its path is nobody's business. Raises UsageError
    if the benchmark fails; what it has to say is on stderr by then.
    """
    benchmark = TASKS[family][2]
    stem = benchmark.replace("-", "_")
    local = Path(model).resolve() if Path(model).is_dir() else None
    shown = model if local is None else local.name
    made = f"{stem}.png", f"{stem}.json"  # the picture first: results ask for it
    command = ["--model", shown, *arguments, "--json", made[1], "--plot", made[0]]
    with tempfile.TemporaryDirectory() as own:
        if local is not None:
            Path(own, shown).symlink_to(local)
        done = child.run([*child.start(benchmark), *command], cwd=own, stdout=2)
        if done.returncode:
            raise UsageError(f"{benchmark} failed with exit code {done.returncode}; nothing was pushed")
        for name in made:
            with replacing(folder / name) as path:
                shutil.copyfile(Path(own, name), path)
    return folder / made[1]


def tree(folder: Path, files: Iterable[Path]) -> str:
    """Some files of a folder with their sizes in bytes, one a line."""
    lines = [f"  {path.name:<36} {path.stat().st_size:>10,}" for path in sorted(files)]
    return "\n".join([f"{folder}/", *lines])
