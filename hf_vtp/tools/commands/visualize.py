"""Draw which patches of your pictures stay.

One picture, method and ratio come at the picture's own size, one panel a stage; more of any become a sheet.
The models `clip`, `llava` and `qwen2_5_vl` are the testbed's or, without --testbed, tiny ones with random
weights; any other is a folder or a name on the Hub.
"""

from __future__ import annotations

import argparse
import sys

from transformers.utils import logging

from ... import vtp, vtp_stats
from ...visualize import contact_sheet, draw_kept, see
from ...visualize.picture import read_picture
from ...visualize.preview import reading_text
from ...visualize.shipped import STAND_INS, TESTBED_HELP, open_model
from ..bench import cli

SMALL = 320  # pixels; a picture whose longer side is shorter is enlarged


def parser() -> argparse.ArgumentParser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("image", nargs="+", metavar="IMAGE")
    p.add_argument("--model", default="clip", help=f"a folder, a name on the Hub or {', '.join(STAND_INS)}")
    p.add_argument("--method", nargs="+", default=["vtp"])
    p.add_argument("--keep-ratio", type=float, nargs="+", default=[0.5])
    p.add_argument("--layer", type=int, nargs="+", help="encoder layers after which tokens leave")
    p.add_argument("--question", help="what methods compare with that look at the prompt's text")
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
    eyes, trained = open_model(args.model, str(device), args.testbed)
    if not trained:
        print("random weights: the picture shows how things work, not what matters in it", file=sys.stderr)
    methods, ratios = cli.unique(args.method), cli.unique(args.keep_ratio)
    if eyes.answers and not args.question and (asking := reading_text(methods)):
        raise cli.UsageError(f"{asking[0]} compares image tokens with a question; give one with --question")
    layer = args.layer[0] if args.layer and len(args.layer) == 1 else args.layer
    if len(pictures) == len(methods) == len(ratios) == 1:
        draw, told = one, (pictures[0], methods[0], ratios[0], layer, args)
    else:
        draw, told = sheet, (pictures, methods, ratios, layer, args)
    try:
        drawn, what = draw(eyes, *told)
    except (ValueError, TypeError) as error:
        raise cli.UsageError(cli.first_sentence(error)) from None
    with cli.replacing(out) as path:
        drawn.save(path, "PNG", optimize=True)
    print(f"wrote {out}: {drawn.width} x {drawn.height} pixels, {what}")


def one(eyes, picture, method, ratio, layer, args):
    with vtp(eyes.model, method=method, keep_ratio=ratio, layer=layer):
        see(eyes, picture, args.question)
        stats = vtp_stats(eyes.model)
    scale = max(1, round(SMALL / max(picture.size)))
    drawn = draw_kept(picture, stats, eyes.image_processor, heat_map=args.heat_map, scale=scale)
    where = ", ".join(str(stage.layer) for stage in stats.stages)
    kept = f"{stats.num_kept[0]} of {stats.num_tokens[0]} tokens kept"
    return drawn, f"{kept} by {method}, pruned after layer {where} of {args.model}"


def sheet(eyes, pictures, methods, ratios, layer, args):
    told = dict(layer=layer, heat_map=args.heat_map, panel=args.panel)
    told |= dict(text=args.question, tokenizer=eyes.tokenizer if args.question else None)
    drawn = contact_sheet(eyes.model, eyes.image_processor, pictures, methods, ratios, **told)
    rows = f"{len(pictures)} image{'s' * (len(pictures) > 1)} x {', '.join(methods)}"
    return drawn, f"{rows} x keep {', '.join(f'{ratio:g}' for ratio in ratios)} on {args.model}"
