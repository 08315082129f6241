"""What pruning buys on a vision-language model: time to the first token, by parts, decoding, memory, FLOPs.

Any family that can be pruned, by the config's model_type. `--layer default` prunes inside the tower, `--layer
output` after it. The last line of stdout is the result as one JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from tqdm import tqdm
from transformers.utils import logging

from ... import list_methods
from ...environment import environment
from ..bench import bench_vlm, cli, floors, memory, plot, plot_vlm, report, vlm
from ..bench.cli import UsageError
from ..bench.inputs import Batches, batches_for
from ..bench.table_vlm import COLUMNS, GROUPS, notes, title
from ..bench.variants import Case, Variants, make_cases

RESOLUTIONS = [256, 1024, 4096]
FLOPS = "counted on this model, one prompt a batch, by torch's counter with the missing formulas"


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="a name on the Hub, a folder or a named geometry")
    p.add_argument(
        "--weights",
        choices=("pretrained", "random"),
        default="pretrained",
        help="random: no download; a geometry, or a folder with config.json and mostly a processor",
    )
    p.add_argument(
        "--keep-ratio", type=float, nargs="+", default=[0.5, 0.25, 0.1], help="shares of visual tokens left"
    )
    p.add_argument(
        "--method", nargs="+", default=["vtp"], help=f"one or several of {', '.join(list_methods())}"
    )
    p.add_argument(
        "--layer",
        type=cli.layer,
        nargs="+",
        default=[None],
        metavar="LAYER",
        help="where tokens leave, each a row of its own: default, output (after the tower), a layer of the "
        "tower, or several stages as in 3,7",
    )
    p.add_argument(
        "--resolution",
        type=cli.count,
        nargs="+",
        metavar="TOKENS",
        help="visual tokens of an image, about, of a model that takes images of any size: the nearest "
        f"near-square grid is taken ({' '.join(map(str, RESOLUTIONS))})",
    )
    p.add_argument("--batch-size", type=cli.count, nargs="+", default=[1])
    p.add_argument(
        "--text-tokens", type=cli.count, default=64, help="words of the prompt beside the image (64)"
    )
    p.add_argument("--new-tokens", type=cli.count, default=32, help="tokens to generate, at least 2 (32)")
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), help="default: bfloat16 on CUDA, else float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument(
        "--attn-implementation", choices=tuple(cli.ATTENTION), help="default: what Transformers picks"
    )
    p.add_argument("--threads", type=cli.threads, help="CPU threads; default: torch's choice")
    p.add_argument("--rounds", type=cli.count, default=5, help="timed calls of every row (5)")
    p.add_argument("--seed", type=cli.seed, default=0, help="of prompts, weights and the order within rounds")
    p.add_argument("--json", metavar="FILE", help="also write the result there")
    p.add_argument("--plot", metavar="FILE", help=f"also draw it, as {' '.join(plot.SUFFIXES)}")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    cases = all_cases(cli.unique(args.method), cli.unique(args.keep_ratio), cli.unique(args.layer))
    if args.new_tokens < 2:
        raise UsageError("--new-tokens must be at least 2: the first comes from the prefill")
    cli.require("rich", *(["matplotlib"] if args.plot else []))
    json_file, plot_file = cli.writable(args.json), cli.writable(args.plot, *plot.SUFFIXES)
    device = cli.device(args.device)
    dtype = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = vlm.config_of(args.model, args.weights)
    batches = batches_for(config, args.model)
    options = (args.weights, cli.DTYPES[dtype], args.attn_implementation, device)
    try:
        model = vlm.load_model(args.model, config, *options)
        batches.look(model)
        args.resolution = resolutions(config.model_type, batches.any_size, args.resolution)
        variants = Variants(model, cases)
        peak = floors.peaks(device, cli.DTYPES[dtype])
        rows = measure(args, batches, variants, peak)
    except torch.OutOfMemoryError:
        raise UsageError(f"{args.model} in {dtype} with these batches does not fit on {device}") from None
    result = {
        "benchmark": config.model_type,
        "command": cli.command(),
        "model": args.model,
        "weights": args.weights,
        "dtype": dtype,
        "attn_implementation": model.config._attn_implementation,
        "text_tokens": args.text_tokens,
        "new_tokens": args.new_tokens,
        "rounds": args.rounds,
        "seed": args.seed,
        "flops": FLOPS,
        "memory": memory.meaning(device, f"generate of {args.new_tokens} tokens"),
        "peaks": peak,
        "environment": environment(device),
        "rows": rows,
    }
    report.print_table(title(result), COLUMNS, rows, notes(result), GROUPS)
    if plot_file:
        plot_vlm.plot(plot_file, title(result), rows)
    if json_file:
        report.write_json(json_file, result)
    report.print_json(result)


def resolutions(family: str, any_size: bool, wanted: list[int] | None) -> list[int | None]:
    """The visual tokens of an image, [None] where the model's images all have as many."""
    if any_size:
        return wanted or RESOLUTIONS
    if wanted:
        raise UsageError(f"every image of a {family} has the same number of tokens; leave out --resolution")
    return [None]


def all_cases(methods: list[str], keep_ratios: list[float], layers: list) -> list[Case]:
    """The unpatched model, then every method at every ratio, its layers one under the other."""
    of = [(m, r, where) for m in methods for r in keep_ratios for where in layers]
    pruned = [replace(make_cases([m], [r], where)[1], apart=f" layer {where}") for m, r, where in of]
    return [Case(), *pruned]


@torch.inference_mode()
def measure(args: argparse.Namespace, batches: Batches, variants: Variants, peak: dict) -> list[dict]:
    """Every row of the table."""
    sizes, resolutions, rows = cli.unique(args.batch_size), cli.unique(args.resolution), []
    each = bench_vlm.calls_per_case(args.rounds) * len(sizes) + 1
    with tqdm(total=len(variants.cases) * len(resolutions) * each, disable=None, leave=False) as bar:
        for resolution in resolutions:
            prompt = prompts(args, batches, variants, resolution)
            bar.set_description("FLOPs")
            work = bench_vlm.measure_flops(variants, prompt(1)[0], args.new_tokens, bar.update)
            for size in sizes:
                inputs, image = prompt(size)
                bar.set_description(f"batch size {size}, image {image}")
                spent = bench_vlm.measure_parts(variants, inputs, args.seed, bar.update)
                options = {"rounds": args.rounds, "seed": args.seed, "progress": bar.update}
                speed = bench_vlm.measure_speed(variants, inputs, args.new_tokens, **options)
                moved = bench_vlm.measure_moved(variants, inputs, bar.update)
                rows += bench_vlm.join(size, image, variants.cases, peak, moved, spent, speed, work)
    return rows


def prompts(
    args: argparse.Namespace, batches: Batches, variants: Variants, resolution: int | None
) -> Callable:
    """The prompts of one image size, by batch size."""
    return lambda size: batches(variants.model, size, args.text_tokens, resolution, args.seed)
