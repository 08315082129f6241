"""How often a small trained LLaVA names the class of CIFAR-10 test images, by method and visual tokens.

The weights and images are not part of this project: --data names a folder that has the model in
`models/llava_cifar10` and the images in `cifar10_test/images.zip`, as `CLASS/NUMBER.jpg`.
"""

import sys
from pathlib import Path

import cifar
import torch
from eval_cifar_clip import config
from transformers import AutoTokenizer, LlavaForConditionalGeneration
from transformers.utils import logging

from hf_vtp import VTPConfig, vtp, vtp_stats
from hf_vtp.measure import cli, report

METHODS = ("vtp", "qk_topk", "random", "uniform", "random+absorb", "uniform+absorb")
PROMPT = ("<|im_start|>user\n", "\nWhat is in the image?<|im_end|>\n<|im_start|>assistant\n")
TOKENS, BATCH = 64, 100


def parse(argv: list[str]):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data", help="folder with the weights and the images")
    parser.add_argument("--num-images", type=cli.count, default=1000, help="in equal parts from every class")
    parser.add_argument(
        "--tokens", type=cli.count, nargs="+", default=[64, 32, 16, 8, 4], help="visual tokens"
    )
    parser.add_argument("--layer", nargs="+", default=["default", "output"], help="0, 1, output or default")
    parser.add_argument("--method", nargs="+", default=METHODS, help="NAME or NAME+absorb")
    parser.add_argument("--positions", default="original", help="original or compact")
    parser.add_argument("--seed", type=int, default=0, help="of random scores")
    parser.add_argument("--json", help="write the last line's JSON to this file too")
    return parser.parse_args(argv)


def stage(name: str) -> int | str | None:
    """A layer as VTPConfig takes it."""
    return None if name == "default" else int(name) if name.isdigit() else name


def cases(args) -> list[tuple[str, int, str, VTPConfig]]:
    """(layer, tokens, method, config) of every row."""
    for tokens in args.tokens:
        if tokens > TOKENS:
            raise cli.UsageError(f"--tokens must be from 1 to {TOKENS}, not {tokens}")
    return [
        (layer, tokens, method, config(method, tokens / TOKENS, stage(layer), args.seed, args.positions))
        for layer in args.layer
        for tokens in args.tokens
        for method in args.method
    ]


def answers(model: LlavaForConditionalGeneration, tokenizer, pixel_values: torch.Tensor) -> list[str]:
    """What the model says is in each image."""
    ends = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in PROMPT]
    ids = torch.tensor(ends[0] + [model.config.image_token_id] * TOKENS + ends[1])
    said = []
    for images in pixel_values.split(BATCH):
        output = model.generate(
            input_ids=ids.expand(len(images), -1),
            attention_mask=torch.ones(len(images), len(ids), dtype=torch.long),
            pixel_values=images,
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=0,
        )
        said += tokenizer.batch_decode(output[:, len(ids) :], skip_special_tokens=True)
    return [text.strip() for text in said]


COLUMNS = (
    ("layer", lambda row: row["layer"]),
    ("method", lambda row: row["method"]),
    ("tokens", lambda row: f"{row['kept_tokens']}/{TOKENS}"),
    ("names the\nclass", report.number("accuracy", 3)),
)


@torch.no_grad()
def main(argv: list[str]) -> None:
    args = parse(argv)
    cli.require("rich")
    out = cli.writable(args.json)
    chosen = cases(args)
    logging.disable_progress_bar()
    folder = cifar.weights(Path(args.data), "llava_cifar10")
    pixel_values, labels = cifar.images(Path(args.data), args.num_images)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = [("an " if name[0] in "aeiou" else "a ") + name for name in cifar.CLASSES]

    def accuracy() -> float:
        said = answers(model, tokenizer, pixel_values)
        return sum(s == names[label] for s, label in zip(said, labels, strict=True)) / len(labels)

    unpruned = {"layer": "-", "method": "unpatched", "kept_tokens": TOKENS, "accuracy": accuracy()}
    rows = [{"batch_size": BATCH, **unpruned}]
    for layer, _, method, chosen_config in chosen:
        with vtp(model, chosen_config):
            row = {"batch_size": BATCH, "layer": layer, "method": method, "accuracy": accuracy()}
            rows.append({**row, "kept_tokens": vtp_stats(model).num_kept[0]})
    result = {
        "evaluation": "llava_cifar10",
        "command": cli.command(argv),
        "dtype": "float32",
        "num_images": len(labels),
        "seed": args.seed,
        "positions": args.positions,
        "environment": report.environment(torch.device("cpu")),
        "rows": rows,
    }
    title = f"CIFAR-10, {len(labels)} test images; one standard error is about .015"
    report.print_table(title, COLUMNS, rows)
    if out is not None:
        report.write_json(out, result)
    report.print_json(result)


if __name__ == "__main__":
    sys.exit(cli.run(main))
