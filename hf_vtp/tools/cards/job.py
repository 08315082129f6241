"""The steps of a push: a pruning config that was checked on the model, and measurements of the model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedConfig

from ...apply import apply_vtp
from ...config import VTPConfig
from ...files import replacing
from .. import child
from ..bench.cli import UsageError
from .kinds import task_of

INSTEAD = "give --weights random for a geometry known by name, or a local folder"


def pruning(config: PreTrainedConfig, base_model: str | None, **fields) -> VTPConfig:
    """The config that apply_vtp makes of these fields on such a model, without its weights.

    Raises UsageError for a family that cannot be pruned and for whatever apply_vtp refuses.
    """
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
            apply_vtp(model, base_model_name_or_path=base_model, **fields)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    return VTPConfig(**model.config.vtp_config)


def measure(family: str, model: str, folder: Path, arguments: list[str]) -> Path:
    """Run the family's benchmark in a process of its own; returns the JSON file that it wrote into `folder`.

    It runs in a folder of its own, so that nothing of a run that was killed hinders the next. A model in a
    local folder is called by the folder's name there, since its path is private. Raises UsageError if the
    benchmark fails; its own message is on stderr by then.
    """
    benchmark = task_of(family).benchmark
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
