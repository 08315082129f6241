"""Prune a model, measure it, write its card, and push config and card to the Hub in one commit.

The folder that is pushed stays, so that a push that failed can be repeated with --results.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from transformers.utils import logging

from ... import list_methods
from ...files import replacing
from ...hub import NAME, is_repo_id, push
from ..bench import cli
from ..cards import job
from ..cards.card import Measured, make_card, read_result


def parser() -> cli.Parser:
    p = cli.Parser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="a name on the Hub, a folder or a named geometry")
    p.add_argument("--keep-ratio", type=float, required=True, help="share of image tokens left")
    p.add_argument("--repo", required=True, help="the repository to push to, as user/name")
    p.add_argument("--method", default="vtp", help=f"one of {', '.join(list_methods())}")
    p.add_argument("--layer", type=int, help="layer after which tokens leave; default: the family's")
    p.add_argument("--base-model", help="the model's name on the Hub; needed where --model is a folder")
    p.add_argument("--results", nargs="+", help="JSON files of benchmarks, instead of measuring now")
    p.add_argument(
        "--weights", choices=("pretrained", "random"), default="pretrained", help="what is measured"
    )
    p.add_argument("--benchmark-options", default="", help="more for the benchmark, in one quoted string")
    p.add_argument("--folder", help="where to write what is pushed; default: artifacts/ and the repo's name")
    p.add_argument("--private", action="store_true", default=None, help="make the repository private")
    p.add_argument("--revision", help="the branch to push to; default: main")
    p.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    p.add_argument("--dry-run", action="store_true", help="write the folder and print it, push nothing")
    return p


def main(argv: list[str]) -> None:
    args = parser().parse_args(argv)
    base = args.base_model or args.model
    if args.base_model is None and os.path.isdir(args.model):
        raise cli.UsageError(
            f"--model {args.model} is a folder, which nobody can load the card's model from; give "
            "--base-model, the model's name on the Hub"
        )
    for option, name in (("--repo", args.repo), ("--base-model", base)):
        if not is_repo_id(name) or (option == "--repo" and "/" not in name):
            raise cli.UsageError(f"{option} must be a name on the Hub such as user/repo, not {name!r}")
    logging.set_verbosity_error()
    config = job.model_config(args.model, args.weights)
    pruning = job.pruning(config, base, keep_ratio=args.keep_ratio, method=args.method, layer=args.layer)
    folder = Path(args.folder or f"artifacts/{args.repo.replace('/', '--')}")
    given, family = [read_result(path) for path in args.results or []], job.family_of(config)
    if any(measured.family != family for measured in given):
        raise cli.UsageError(f"--results must be of the model's family, {family}")
    if not given:
        cli.require("rich", "matplotlib")
    prepare(folder)
    pruning.save_pretrained(folder)
    if not given:
        given = [read_result(job.measure(family, args.model, folder, options_of(args)))]
    results = [gathered(measured, folder) for measured in given]
    name = args.repo.split("/")[1]
    card = make_card(base, results, folder, name=name, config_from=args.repo)
    with replacing(folder / "README.md") as path:
        path.write_text(str(card), encoding="utf-8")
    pictures = [measured.picture for measured in results if measured.picture]
    files = [folder / "README.md", folder / NAME, *(measured.path for measured in results), *pictures]
    print(job.tree(folder, files))
    if args.dry_run:
        print(f"dry run: nothing was pushed; without --dry-run this goes to {args.repo}")
        return
    options = {"private": args.private, "revision": args.revision, "create_pr": args.create_pr}
    options["message"] = f"Image tokens pruned to {args.keep_ratio:g} with hf_vtp"
    try:
        done = push(args.repo, {path.name: path for path in files}, **options)
    except (OSError, ValueError) as error:
        raise cli.UsageError(f"{error} (everything is in {folder})") from None
    print(done.pr_url or done.commit_url)


def options_of(args) -> list[str]:
    """The benchmark's options beside the model."""
    layer = [] if args.layer is None else ["--layer", str(args.layer)]
    options = ["--weights", args.weights, "--method", args.method, "--keep-ratio", f"{args.keep_ratio:g}"]
    return [*options, *layer, *benchmark_options(args.benchmark_options)]


def benchmark_options(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:  # a quotation mark that is not closed
        raise cli.UsageError(f"--benchmark-options cannot be split into words: {error}") from None


def prepare(folder: Path) -> None:
    """Make the folder; refuse one that holds other things, among them perhaps a README.md."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise cli.UsageError(f"{folder} cannot be a folder ({cli.reason(error)}); give another") from None
    cli.folder(str(folder), "--folder")
    for name in ("README.md", NAME):
        cli.writable(str(folder / name))
    # what begins with a dot is no README.md, but perhaps the half of a file of a run that was killed
    others = any(not path.name.startswith(".") for path in folder.iterdir())
    if others and not (folder / NAME).is_file():
        raise cli.UsageError(f"{folder} holds other files; give an empty --folder")


def gathered(measured: Measured, folder: Path) -> Measured:
    """The result in `folder`, its picture beside it."""
    for path in filter(None, (measured.path, measured.picture)):
        if path.resolve().parent != folder.resolve():
            with replacing(folder / path.name) as copy:
                shutil.copyfile(path, copy)
    return read_result(folder / measured.path.name)
