"""Zero-shot accuracy and cosine of a small trained CLIP on CIFAR-10 test images, by method and keep ratio.

The weights and images are not part of this project: --data names a folder that has the model in
`models/clip_cifar10` and the images in `cifar10_test/images.zip`, as `CLASS/NUMBER.jpg`.
"""

import io
import json
import platform
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

import hf_vtp
from hf_vtp import VTPConfig, apply_vtp, vtp_stats
from hf_vtp.measure import cli

METHODS = ("vtp", "qk_topk", "random", "uniform", "random+absorb", "uniform+absorb")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PROMPTS = (  # those of CLIP's own for CIFAR-10 that the text tower was fitted to
    *("a photo of a {}.", "a photo of the {}.", "a photo of a small {}.", "a photo of a big {}."),
    *("a good photo of a {}.", "a bad photo of a {}.", "a blurry photo of a {}."),
)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's pixels, by channel
BATCH = 250


def parse(argv: list[str]):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data", help="folder with the weights and the images")
    parser.add_argument("--num-images", type=cli.count, default=2000, help="in equal parts from every class")
    parser.add_argument("--keep-ratio", type=float, nargs="+", default=[0.7, 0.5, 0.25])
    parser.add_argument("--layer", type=int, nargs="+", default=[0], help="tokens leave after these layers")
    parser.add_argument(
        "--method",
        nargs="+",
        default=METHODS,
        help="names of list_methods(); NAME+absorb puts that merger in",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random scores")
    parser.add_argument("--json", help="write the last line's JSON to this file too")
    return parser.parse_args(argv)


def config(name: str, keep_ratio: float, layer: list[int], seed: int) -> VTPConfig:
    """The VTPConfig of a row; raises UsageError with the sentence that says what is allowed."""
    method, _, merger = name.partition("+")
    try:
        chosen = VTPConfig(method=method, merger=merger or None, keep_ratio=keep_ratio, layer=layer)
        if chosen.part("scorer")[0] == "random":
            chosen = chosen.replace(scorer_options={"seed": seed})
        return chosen
    except (TypeError, ValueError) as error:
        raise cli.UsageError(error) from None


def load(data: Path, num_images: int) -> tuple[CLIPModel, CLIPTokenizer, torch.Tensor, torch.Tensor]:
    """Model, tokenizer, normalised pixel values [N, 3, 32, 32] and labels [N]."""
    weights, archive = data / "models" / "clip_cifar10", data / "cifar10_test" / "images.zip"
    for needed in (weights, archive):
        if not needed.exists():
            raise cli.UsageError(f"there is no {needed}; give the folder that has both with --data")
    if num_images % len(CLASSES):
        raise cli.UsageError(f"--num-images must be a multiple of {len(CLASSES)}, not {num_images}")
    images, labels = [], []
    with zipfile.ZipFile(archive) as files:
        for label, name in enumerate(CLASSES):
            members = sorted(n for n in files.namelist() if n.startswith(f"{name}/"))
            if len(members) < num_images // len(CLASSES):
                raise cli.UsageError(
                    f"--num-images must be at most {len(members) * len(CLASSES)}, not {num_images}"
                )
            for member in members[: num_images // len(CLASSES)]:
                images.append(np.asarray(Image.open(io.BytesIO(files.read(member))).convert("RGB")))
                labels.append(label)
    pixels = (np.stack(images) / 255 - MEAN) / STD  # [N, 32, 32, 3]
    model = CLIPModel.from_pretrained(weights, dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(weights)
    return (
        model,
        tokenizer,
        torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2),
        torch.tensor(labels),
    )


def class_embeddings(model: CLIPModel, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """The mean direction of each class's prompts, [10, D] of length one."""
    prompts = [prompt.format(name) for name in CLASSES for prompt in PROMPTS]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    embeds = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    return torch.nn.functional.normalize(embeds.unflatten(0, (len(CLASSES), -1)).mean(dim=1), dim=-1)


def image_embeddings(model: CLIPModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """[N, D] of length one"""
    batches = [model.get_image_features(pixel_values=x).pooler_output for x in pixel_values.split(BATCH)]
    return torch.nn.functional.normalize(torch.cat(batches), dim=-1)


def table(rows: list[dict], caption: str):
    from rich.table import Table

    shown = Table("method", title="CIFAR-10 test images", caption=caption)
    for heading in ("keep", "tokens", "accuracy", "cosine mean", "5th pct.", "min"):
        shown.add_column(heading, justify="right")
    for row in rows:
        cosine = (f"{row[f'cosine_{what}']:.4f}" for what in ("mean", "p5", "min"))
        tokens = f"{row['num_kept']}/{row['num_tokens']}"
        shown.add_row(row["method"], f"{row['keep_ratio']:g}", tokens, f"{row['accuracy']:.4f}", *cosine)
    return shown


@torch.no_grad()
def main(argv: list[str]) -> None:
    args = parse(argv)
    cli.require("rich")
    out = cli.writable(args.json, ".json")
    configs = {(m, r): config(m, r, args.layer, args.seed) for r in args.keep_ratio for m in args.method}
    model, tokenizer, pixel_values, labels = load(Path(args.data), args.num_images)
    classes = class_embeddings(model, tokenizer)
    plain = image_embeddings(model, pixel_values)
    unpruned = ((plain @ classes.T).argmax(dim=-1) == labels).float().mean().item()
    rows = []
    for (method, keep_ratio), chosen in configs.items():
        try:
            apply_vtp(model, chosen)
        except ValueError as error:  # a layer beyond the encoder
            raise cli.UsageError(error) from None
        embeds = image_embeddings(model, pixel_values)
        stats = vtp_stats(model)
        cosine = (embeds * plain).sum(dim=-1)
        correct = ((embeds @ classes.T).argmax(dim=-1) == labels).float()
        rows.append(
            {
                "method": method,
                "keep_ratio": keep_ratio,
                "num_tokens": stats.num_tokens[0],
                "num_kept": stats.num_kept[0],
                "accuracy": round(correct.mean().item(), 4),
                "cosine_mean": round(cosine.mean().item(), 5),
                "cosine_p5": round(cosine.quantile(0.05).item(), 5),
                "cosine_min": round(cosine.min().item(), 5),
            }
        )
    from rich.console import Console

    Console().print(table(rows, f"{len(labels)} images, unpruned accuracy {unpruned:.4f}"))
    report = {
        "unpruned_accuracy": round(unpruned, 4),
        "rows": rows,
        "n": len(labels),
        "layer": args.layer,
        "seed": args.seed,
        "dtype": "float32",
        "device": "cpu",
        "versions": {
            "hf_vtp": hf_vtp.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "command": cli.command(argv),
    }
    if out is not None:
        with cli.replacing(out) as target:
            target.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(cli.run(main))
