"""The command line `hf-vtp`; a command is a module beside this one with `parser()` and `main(argv)`."""

from __future__ import annotations

import importlib
import logging
import sys

from ...version import __version__

COMMANDS = {  # a module is imported when its command is run: to list them needs no torch
    "bench-clip": "what pruning buys on a vision tower: time, FLOPs, memory, cosine",
    "bench-vlm": "what it buys on a vision-language model: first token, decoding, memory, FLOPs",
    "bench-methods": "what each method costs by itself",
    "bench-weighted": "what size-weighted attention costs",
    "bench-suite": "the benchmarks at the published sizes, one after the other",
    "eval-clip": "what pruning costs a classifier or a CLIP: accuracy, agreement, retrieval, cosine",
    "eval-vlm": "what it costs a vision-language model: answers to questions",
    "leaderboard": "every method on every model of a file, as a page with its picture",
    "tune": "find the fastest pruning that keeps the quality you name, on pictures without labels",
    "visualize": "draw which patches of your pictures stay",
    "demo": "a page to try pruning on, in a browser on this machine",
    "verify": "check on a model and pictures of yours that pruning keeps its promises",
    "make-questions": "questions about classified images, for eval-vlm",
    "make-model-card": "a model card from the results of benchmarks and evaluations",
    "push-to-hub": "prune a model, measure it, write its card and push config and card to the Hub",
    "make-testbed-data": "drawn scenes with captions and questions, as a dataset",
    "make-caption-data": "pictures with captions in a JSON file, as a dataset",
    "train-testbed": "train one of the small models that the tests prune, or one that captions",
}
ALIASES = {"eval": "eval-clip"}
LOUD = ("torchao", "torch.utils._pytree")  # where torchao is installed Transformers imports it, and it logs


def main(argv: list[str] | None = None) -> int:
    """`hf-vtp COMMAND …`; the exit code, 2 where there is no such command."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"hf-vtp {__version__}")
        return 0
    command = ALIASES.get(name, name)
    if command not in COMMANDS:
        print(f"hf-vtp: unknown command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv = [f"hf-vtp {name}", *rest]  # what errors, usage and results call this command
    return run(command)


def run(name: str, *defaults: str) -> int:
    """A command on sys.argv's arguments, with options in front that these may overrule; the exit code."""
    for logger in LOUD:
        logging.getLogger(logger).setLevel(logging.ERROR)
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    from ..bench import cli

    return cli.run(module.main, [*defaults, *sys.argv[1:]])


def overview() -> str:
    """Every command with what it does, one a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, line in COMMANDS.items()]
    usage = "usage: hf-vtp COMMAND [OPTION ...]"
    last = [f"hf-vtp {short} is hf-vtp {name}." for short, name in ALIASES.items()]
    last.append("hf-vtp COMMAND --help lists the options of one of them.")
    return "\n".join([usage, "", *lines, "", *last])
