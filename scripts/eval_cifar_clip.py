"""Zero-shot accuracy and cosine of a small trained CLIP on CIFAR-10 test images, by method and keep ratio.

The weights and images are not part of this project: --data names a folder that has the model in
`models/clip_cifar10` and the images in `cifar10_test/images.zip`, as `CLASS/NUMBER.jpg`.
"""

import sys
from pathlib import Path

import cifar
import torch
from transformers import CLIPModel, CLIPTokenizer
from transformers.utils import logging

from hf_vtp import VTPConfig, vtp_stats
from hf_vtp.measure import bench, cli, report
from hf_vtp.measure.variants import Case, Variants

METHODS = ("vtp", "qk_topk", "random", "uniform", "random+absorb", "uniform+absorb")
PROMPTS = (  # those of CLIP's own for CIFAR-10 that the text tower was fitted to
    *("a photo of a {}.", "a photo of the {}.", "a photo of a small {}.", "a photo of a big {}."),
    *("a good photo of a {}.", "a bad photo of a {}.", "a blurry photo of a {}."),
)
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


def config(name: str, keep_ratio: float, layer, seed: int, positions: str = "original") -> VTPConfig:
    """The VTPConfig of a row; raises UsageError with the sentence that says what is allowed."""
    method, _, merger = name.partition("+")
    told = dict(keep_ratio=keep_ratio, layer=layer, positions=positions)
    try:
        chosen = VTPConfig(method=method, merger=merger or None, **told)
        if chosen.part("scorer")[0] == "random":
            chosen = chosen.replace(scorer_options={"seed": seed})
        return chosen
    except (TypeError, ValueError) as error:
        raise cli.UsageError(str(error)) from None


def load(data: Path, num_images: int) -> tuple[CLIPModel, CLIPTokenizer, torch.Tensor, torch.Tensor]:
    """Model, tokenizer, normalised pixel values [N, 3, 32, 32] and labels [N]."""
    folder = cifar.weights(data, "clip_cifar10")
    pixel_values, labels = cifar.images(data, num_images)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, CLIPTokenizer.from_pretrained(folder), pixel_values, labels


def class_embeddings(model: CLIPModel, tokenizer: CLIPTokenizer) -> torch.Tensor:
    """The mean direction of each class's prompts, [10, D] of length one."""
    prompts = [prompt.format(name) for name in cifar.CLASSES for prompt in PROMPTS]
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    embeds = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    return torch.nn.functional.normalize(embeds.unflatten(0, (len(cifar.CLASSES), -1)).mean(dim=1), dim=-1)


def image_embeddings(model: CLIPModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """[N, D] of length one"""
    batches = [model.get_image_features(pixel_values=x).pooler_output for x in pixel_values.split(BATCH)]
    return torch.nn.functional.normalize(torch.cat(batches), dim=-1)


COLUMNS = (
    ("method", lambda row: row["method"]),
    ("keep", lambda row: "-" if row["keep_ratio"] is None else f"{row['keep_ratio']:g}"),
    ("tokens", lambda row: f"{row['kept_tokens']}/{row['total_tokens']}"),
    ("accuracy", report.number("accuracy", 4)),
    ("cosine\nmean", report.number("cosine_mean", 4)),
    ("cosine\np5", report.number("cosine_p5", 4)),
    ("cosine\nmin", report.number("cosine_min", 4)),
)


def measure(
    variants: Variants, pixel_values: torch.Tensor, labels: torch.Tensor, classes: torch.Tensor
) -> list[dict]:
    """A row for every case; the first is the unpatched model, which the cosines refer to."""
    rows, reference = [], None
    num_tokens = (pixel_values.shape[-1] // variants.model.config.vision_config.patch_size) ** 2
    for case in variants.cases:
        model = variants.eager(case)
        embeds = image_embeddings(model, pixel_values)
        reference = embeds if reference is None else reference
        accuracy = ((embeds @ classes.T).argmax(dim=-1) == labels).float().mean().item()
        rows.append(
            {
                "batch_size": BATCH,
                "method": case.method,
                "keep_ratio": case.keep_ratio,
                "kept_tokens": vtp_stats(model).num_kept[0] if case.config else num_tokens,
                "total_tokens": num_tokens,
                "accuracy": accuracy,
                **bench.agreement(embeds, reference),
            }
        )
    return rows


@torch.no_grad()
def main(argv: list[str]) -> None:
    args = parse(argv)
    cli.require("rich")
    out = cli.writable(args.json)
    ratios, methods = cli.unique(args.keep_ratio), cli.unique(args.method)
    cases = [Case(m, r, config(m, r, args.layer, args.seed)) for r in ratios for m in methods]
    logging.disable_progress_bar()
    model, tokenizer, pixel_values, labels = load(Path(args.data), args.num_images)
    variants = Variants(model, [Case(), *cases])
    rows = measure(variants, pixel_values, labels, class_embeddings(model, tokenizer))
    result = {
        "evaluation": "clip_cifar10",
        "command": cli.command(argv),
        "dtype": "float32",
        "num_images": len(labels),
        "layer": args.layer,
        "seed": args.seed,
        "environment": report.environment(torch.device("cpu")),
        "rows": rows,
    }
    title = f"CIFAR-10, {len(labels)} test images, tokens leave after layer {', '.join(map(str, args.layer))}"
    report.print_table(title, COLUMNS, rows)
    if out is not None:
        report.write_json(out, result)
    report.print_json(result)


if __name__ == "__main__":
    sys.exit(cli.run(main))
