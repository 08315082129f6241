"""Check on a model and pictures of yours that pruning gives what it promises.

Prints a table and one JSON line. The exit code is 0 if all checks that apply hold, 1 if one does not, 2 for
input that cannot be used.
"""

from __future__ import annotations

import argparse
import sys

import torch
from transformers.utils import logging

from ... import verify
from ...visualize.picture import read_picture
from ..bench import cli, report
from ..verify_inputs import pictured, random_weights


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="a folder, a name on the Hub or, if random, a geometry")
    p.add_argument("--image", nargs="+", metavar="FILE", help="pictures, one a row of the batch")
    p.add_argument("--prompt", default="What is in this picture?", help="what every row asks of its picture")
    p.add_argument(
        "--weights", choices=("pretrained", "random"), default="pretrained", help="random: no picture either"
    )
    p.add_argument("--keep-ratio", type=float, nargs="+", help="one share, or one for each of several layers")
    p.add_argument("--layer", type=cli.layer, help="default, output, a layer, or several as in 3,7")
    p.add_argument("--method", help="default: that of VTPConfig")
    p.add_argument("--positions", choices=("original", "compact"))
    p.add_argument("--tolerance", type=float, help="largest relative difference; default: by the precision")
    p.add_argument("--new-tokens", type=cli.count, default=8, help="tokens to generate (8)")
    p.add_argument("--dtype", choices=tuple(cli.DTYPES), default="float32")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--attention", choices=tuple(cli.ATTENTION), help="default: what Transformers picks")
    p.add_argument("--seed", type=int, default=0, help="of random weights and images")
    p.add_argument("--json", metavar="FILE", help="also write the report there")
    return p


@torch.no_grad()
def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    target, device, dtype = cli.writable(args.json), cli.device(args.device), cli.DTYPES[args.dtype]
    random = args.weights == "random"
    if random == bool(args.image):
        raise cli.UsageError("give --image with a picture, or --weights random without one")
    pictures = [read_picture(path) for path in args.image or ()]
    if random:
        model, inputs = random_weights(args.model, 2, dtype, device, args.seed)
    else:
        model, inputs = pictured(args.model, pictures, args.prompt, dtype, device)
    if args.attention:
        cli.set_attention(model, args.attention, dtype, device)
    fields = {name: getattr(args, name) for name in ("layer", "method", "positions") if getattr(args, name)}
    if args.keep_ratio:
        fields["keep_ratio"] = args.keep_ratio if len(args.keep_ratio) > 1 else args.keep_ratio[0]
    if args.layer == 0:
        fields["layer"] = 0
    told = {"tolerance": args.tolerance, "max_new_tokens": args.new_tokens}
    try:
        found = verify(model, inputs, **told, **fields)
    except (ValueError, TypeError) as error:
        raise cli.UsageError(cli.first_sentence(error)) from None
    result = {"command": cli.command(), "model": args.model, "weights": args.weights, **found.to_dict()}
    print(found.table())
    if target is not None:
        report.write_json(target, result)
    report.print_json(result)
    if not found.holds:
        sys.exit(1)
