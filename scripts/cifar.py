"""CIFAR-10 test images from a folder that is not part of this project, for the eval_cifar_* scripts."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_vtp.measure import cli

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's pixels, by channel


def weights(data: Path, name: str) -> Path:
    """The folder of a model; raises UsageError if it or the images are not there."""
    for needed in (data / "models" / name, data / "cifar10_test" / "images.zip"):
        if not needed.exists():
            raise cli.UsageError(f"there is no {needed}; give the folder that has both with --data")
    return data / "models" / name


def images(data: Path, num_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised pixel values [N, 3, 32, 32] and labels [N], equally many of each class."""
    if num_images % len(CLASSES):
        raise cli.UsageError(f"--num-images must be a multiple of {len(CLASSES)}, not {num_images}")
    pixels, labels = [], []
    with zipfile.ZipFile(data / "cifar10_test" / "images.zip") as files:
        for label, name in enumerate(CLASSES):
            members = sorted(n for n in files.namelist() if n.startswith(f"{name}/"))
            if len(members) < num_images // len(CLASSES):
                most = len(members) * len(CLASSES)
                raise cli.UsageError(f"--num-images must be at most {most}, not {num_images}")
            for member in members[: num_images // len(CLASSES)]:
                pixels.append(np.asarray(Image.open(io.BytesIO(files.read(member))).convert("RGB")))
                labels.append(label)
    normalised = (np.stack(pixels) / 255 - MEAN) / STD  # [N, 32, 32, 3]
    return torch.tensor(normalised, dtype=torch.float32).permute(0, 3, 1, 2), torch.tensor(labels)
