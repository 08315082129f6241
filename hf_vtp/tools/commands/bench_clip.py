"""What pruning buys on a vision tower: time, throughput, FLOPs, memory, and the cosine it costs.

The tower is that of a CLIP, SigLIP, DINOv2, ViT, ... by the model_type of the model's config, and alone. Its
embedding of an image is what it projects, else what it pools, else its [CLS] token or the mean over its
patches. The last line of stdout is the result as one JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from tqdm import tqdm
from transformers.utils import logging

from ... import list_methods
from ...environment import environment
from ...pruning.stage import adaptive
from ..bench import bench, cli, floors, images, memory, plot, report
from ..bench.variants import Variants, make_cases
from ..towers import LoadedTower, images_for, load_tower

MODEL = "openai/clip-vit-base-patch16"
WARMUP = 2
EVAL_BATCH = 32


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default=MODEL, help=f"a name on the Hub, a folder or a geometry ({MODEL})")
    p.add_argument(
        "--weights", choices=("pretrained", "random"), default="pretrained", help="random: speed only"
    )
    p.add_argument(
        "--images", help="a folder, or what `datasets` can load: a file, a folder, a name[:split] of the Hub"
    )
    p.add_argument("--num-images", type=cli.count, default=500, help="use at most so many images (500)")
    p.add_argument(
        "--keep-ratio", type=float, nargs="+", default=[1.0, 0.7, 0.5, 0.3], help="shares of tokens left"
    )
    p.add_argument(
        "--method", nargs="+", default=["vtp"], help=f"one or several of {', '.join(list_methods())}"
    )
    p.add_argument(
        "--layer", type=int, nargs="+", help="encoder layer(s) after which tokens leave; 0 is the first"
    )
    p.add_argument("--batch-size", type=cli.count, nargs="+", default=[8])
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), default="float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument(
        "--attn-implementation", choices=tuple(cli.ATTENTION), help="default: what Transformers picks"
    )
    p.add_argument("--compile", action="store_true", help="time torch.compile(fullgraph=True) models")
    p.add_argument("--threads", type=cli.threads, help="CPU threads; default: torch's choice")
    p.add_argument("--rounds", type=cli.count, default=15, help="timed forwards of every row (15)")
    p.add_argument(
        "--seed", type=cli.seed, default=0, help="of the order within rounds and of random weights"
    )
    p.add_argument("--json", metavar="FILE", help="also write the result there")
    p.add_argument("--plot", metavar="FILE", help=f"also draw it, as {' '.join(plot.SUFFIXES)}")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    cases = make_cases(cli.unique(args.method), cli.unique(args.keep_ratio), _layer(args.layer))
    cli.require("rich", *(["matplotlib"] if args.plot else []))
    json_file, plot_file = cli.writable(args.json), cli.writable(args.plot, *plot.SUFFIXES)
    device, dtype = cli.device(args.device), cli.DTYPES[args.dtype]
    quiet()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    found = images.find_images(args.images)
    tower = load_tower(args.model, args.weights, dtype, args.attn_implementation, device)
    model = tower.model
    variants = Variants(model, cases, args.compile)
    pixels = images_for(tower, args.model, args.weights, found.decoded(args.num_images))
    peak = floors.peaks(device, dtype)
    rows = measure(args, tower, variants, pixels, peak)
    result = {
        "benchmark": "clip",
        "command": cli.command(),
        "model": args.model,
        "model_type": model.config.model_type,
        "weights": args.weights,
        "dtype": args.dtype,
        "attn_implementation": model.config._attn_implementation,
        "compile": args.compile,
        "images": found.source,
        "num_images": bench.count(pixels),
        "num_skipped": len(found.skipped),
        "rounds": args.rounds,
        "seed": args.seed,
        "memory": memory.meaning(device),
        "peaks": peak,
        "environment": environment(device),
        "rows": rows,
    }
    show(result, found.skipped)
    if plot_file:
        plot.plot(plot_file, title(result), rows)
    if json_file:
        report.write_json(json_file, result)
    report.print_json(result)


@torch.inference_mode()
def measure(
    args: argparse.Namespace, tower: LoadedTower, variants: Variants, pixels: bench.Inputs, peak: dict
) -> list[dict]:
    """Every row of the table."""
    trained, sizes = args.weights == "pretrained", cli.unique(args.batch_size)
    device, whole = tower.model.device, bench.count(pixels)

    def embed(model: Callable, inputs: bench.Inputs) -> torch.Tensor:
        return tower.embed(inputs, model)

    def some(number: int, start: int = 0) -> bench.Inputs:
        """So many images, over again where there are fewer."""
        return {name: x[(start + torch.arange(number)) % whole] for name, x in pixels.items()}

    rounds = args.rounds + WARMUP + 2  # two more for the memory and the bytes moved
    with tqdm(
        total=len(variants.cases) * (1 + trained + rounds * len(sizes)), disable=None, leave=False
    ) as bar:
        bar.set_description("FLOPs")
        follows = any(case.config is not None and adaptive(case.config) for case in variants.cases)
        batch = bench.on(device, some(max(sizes) if follows else 1))
        work = bench.measure_work(variants, embed, batch, bar.update)
        bar.set_description("cosine")
        agreement = {case.name: bench.NO_AGREEMENT for case in variants.cases}
        if trained:
            starts = range(0, whole, EVAL_BATCH)
            batches = [some(min(EVAL_BATCH, whole - start), start) for start in starts]
            agreement = bench.measure_agreement(variants, embed, batches, device, bar.update)
        rows = []
        for size in sizes:
            bar.set_description(f"batch size {size}")
            batch = bench.on(device, some(size))
            options = {"rounds": args.rounds, "warmup": WARMUP, "seed": args.seed, "progress": bar.update}
            speed = bench.measure_speed(variants, embed, batch, **options)
            moved = bench.measure_moved(variants, embed, batch, bar.update)
            rows += bench.join(size, variants.cases, peak, moved, work, speed, agreement)
    return rows


def title(result: dict) -> str:
    how = f"{result['dtype']}, {result['attn_implementation']}{', compiled' if result['compile'] else ''}"
    machine = result["environment"]
    cores = "" if machine["cuda"] else f", {machine['threads']} threads"
    layers = ", ".join(str(layer) for layer in result["rows"][-1]["layers"])
    where = f"{result['weights']} weights, pruned after layer {layers}"
    return f"{result['model']} ({where})\n{machine['device_name']}{cores}, {how}"


def show(result: dict, skipped: list[str]) -> None:
    notes = [
        f"{result['rounds']} interleaved rounds, seed {result['seed']}; cosines over {result['num_images']} "
        f"images ({result['images']}).",
        f"Peak memory: {result['memory']}.",
        "Efficiency: speed-up / FLOP ratio.",
        report.floor_note(result["peaks"]),
    ]
    if result["weights"] == "random":
        notes[0] = (
            f"{result['rounds']} interleaved rounds, seed {result['seed']}; random weights, so no cosine."
        )
    if skipped:
        notes.append(
            f"{len(skipped)} broken image{'s were' if len(skipped) > 1 else ' was'} skipped (see stderr)."
        )
    report.print_table(title(result), report.VISION_COLUMNS, result["rows"], notes)


def quiet() -> None:
    """Leave stderr to what the user must read."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _layer(layers: list[int] | None) -> int | list[int] | None:
    return layers[0] if layers and len(layers) == 1 else layers
