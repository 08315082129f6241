"""Draw which patches of your pictures stay.

One picture, method and ratio come at the picture's own size, one panel a stage; more of any become a sheet.
A model is a folder or a name on the Hub; those that --help lists are the testbed's or, without --testbed,
tiny ones with random weights.
"""

from __future__ import annotations

import argparse
import sys

from transformers.utils import logging

from ... import vtp, vtp_stats
from ...visualize import contact_sheet, draw_kept, preview
from ...visualize.preview import reading_text
from ..bench import cli
from ..pictures import read_picture
from ..shipped import SEEING, STAND_INS, TESTBED_HELP, open_model

SMALL = 320  # pixels; a picture whose longer side is shorter is enlarged


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("image", nargs="+", metavar="IMAGE")
    p.add_argument("--model", default=SEEING, help=f"a folder, a name on the Hub or {', '.join(STAND_INS)}")
    p.add_argument("--method", nargs="+", default=["vtp"])
    p.add_argument("--keep-ratio", type=float, nargs="+", default=[0.5])
    p.add_argument("--layer", type=int, nargs="+", help="encoder layers after which tokens leave")
    p.add_argument("--question", help="for methods that compare image tokens with the prompt's text")
    p.add_argument("--heat-map", action="store_true", help="the scores instead of the picture")
    p.add_argument("--panel", type=cli.count, default=224, help="longer side of a picture on a sheet (224)")
    p.add_argument("--device", help="cpu, cuda, cuda:1 …; default: cuda if there")
    p.add_argument("--testbed", metavar="FOLDER", help=TESTBED_HELP)
    p.add_argument("--out", required=True, metavar="FILE.png")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    out, device = cli.writable(args.out, ".png"), cli.device(args.device)
    pictures = [read_picture(path) for path in args.image]
    if out.exists() and any(out.samefile(path) for path in args.image):
        raise cli.UsageError(f"--out {out} is one of the pictures; give another name")
    loaded, trained = open_model(args.model, str(device), args.testbed)
    if not trained:
        print("random weights: the picture shows how things work, not what matters in it", file=sys.stderr)
    methods, ratios = cli.unique(args.method), cli.unique(args.keep_ratio)
    if loaded.answers and not args.question and (asking := reading_text(methods)):
        raise cli.UsageError(f"{asking[0]} compares image tokens with a question; give one with --question")
    layer = args.layer[0] if args.layer and len(args.layer) == 1 else args.layer
    if len(pictures) == len(methods) == len(ratios) == 1:
        draw, asked = one, (pictures[0], methods[0], ratios[0], layer, args)
    else:
        draw, asked = sheet, (pictures, methods, ratios, layer, args)
    try:
        drawn, what = draw(loaded, *asked)
    except (ValueError, TypeError) as error:
        raise cli.UsageError(cli.first_sentence(error)) from None
    with cli.replacing(out) as path:
        drawn.save(path, "PNG", optimize=True)
    print(f"wrote {out}: {drawn.width} x {drawn.height} pixels, {what}")


def one(loaded, picture, method, ratio, layer, args):
    """One picture at its own size, and a line that says what it shows."""
    with vtp(loaded.model, method=method, keep_ratio=ratio, layer=layer):
        preview(loaded.model, loaded.processor, picture, args.question)
        stats = vtp_stats(loaded.model)
    scale = max(1, round(SMALL / max(picture.size)))
    drawn = draw_kept(picture, stats, loaded.processor, heat_map=args.heat_map, scale=scale)
    where = ", ".join(str(stage.layer) for stage in stats.stages)
    kept = f"{sum(stats.num_kept)} of {sum(stats.num_tokens)} tokens kept"
    return drawn, f"{kept} by {method}, pruned after layer {where} of {args.model}"


def sheet(loaded, pictures, methods, ratios, layer, args):
    """A sheet of several pictures, methods or ratios, and a line that says what it shows."""
    kwargs = dict(layer=layer, heat_map=args.heat_map, panel=args.panel, text=args.question)
    drawn = contact_sheet(loaded.model, loaded.processor, pictures, methods, ratios, **kwargs)
    rows = f"{len(pictures)} image{'s' * (len(pictures) > 1)} x {', '.join(methods)}"
    return drawn, f"{rows} x keep {', '.join(f'{ratio:g}' for ratio in ratios)} on {args.model}"
