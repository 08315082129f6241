"""The benchmarks as pieces of a suite: what runs on which device, each in under nine minutes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ...files import replacing
from .. import child
from ..cards.card import read_result, section
from .cli import UsageError

LIMIT_S = 540  # of a piece
B16, L14 = "openai/clip-vit-base-patch16", "openai/clip-vit-large-patch14-336"
LLAVA, QWEN = "llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct"


@dataclass(frozen=True)
class Piece:
    """One run of a benchmark: its command and the arguments, those of files excepted."""

    command: str
    arguments: str
    plot: bool = True


def clip(model: str, rest: str) -> Piece:
    return Piece("bench-clip", f"--weights random --model {model} --num-images 32 {rest}")


def qwen(tokens: int, rest: str) -> Piece:
    return Piece("bench-vlm", f"--weights random --resolution {tokens} --layer default output {rest}")


EAGER = "--method vtp qk_topk tome uniform --keep-ratio 0.7 0.5 0.25"
COMPILED = "--compile --batch-size 1 64 --method vtp qk_topk --keep-ratio 0.5 --dtype bfloat16"
LARGE = f"{EAGER} --batch-size 1 8 64 256 --dtype bfloat16"
OF_576 = "--keep-ratio 0.3334 0.2223 0.1112"  # 192, 128 and 64 of 576 tokens
TWO = "--threads 2"
QWEN_SMALL = f"--model qwen2_5_vl-small --keep-ratio 0.25 --method vtp {TWO}"

PARTS_OF_16384 = {  # so that each ends in time on two cores; methods that are missing take fewer tokens
    "parallel": "vtp qk_topk dynamic tome fastervlm visionzip prumerge holov dart recoverable random uniform",
    "attention": "hiprune flowcut fopru_rank fopru_row token_transforming",
    "gtp": "gtp",
    "zero_tprune": "zero_tprune",
    "greedy": "divprune todre",
}
PIECES = {  # by the kind of device, then by name
    "cuda": {
        "clip_vit_b16_bf16": clip(B16, LARGE),
        "clip_vit_l14_336_bf16": clip(L14, LARGE),
        "clip_vit_b16_bf16_compiled": clip(B16, COMPILED),
        "clip_vit_l14_336_bf16_compiled": clip(L14, COMPILED),
        "llava_7b_bf16": Piece(
            "bench-vlm",
            f"--weights random --model {LLAVA} {OF_576} --batch-size 1 8 --method vtp qk_topk --rounds 5",
        ),
        **{
            f"qwen2_5_vl_7b_bf16_{tokens}": qwen(
                tokens,
                f"--model {QWEN} --keep-ratio 0.5 0.25 0.1 --method vtp --rounds {rounds} --new-tokens 16",
            )
            for tokens, rounds in ((1024, 5), (4096, 5), (16384, 3))
        },
        "methods_bf16": Piece("bench-methods", "--dtype bfloat16", plot=False),
    },
    "cpu": {
        "clip_vit_b16_fp32": clip(B16, f"{EAGER} --layer 0 --batch-size 8 --rounds 7 {TWO}"),
        "clip_vit_b16_fp32_batch1": clip(B16, f"{EAGER} --layer 0 --batch-size 1 --rounds 15 {TWO}"),
        "clip_vit_b16_bf16": clip(
            B16, f"--method vtp qk_topk --keep-ratio 0.7 0.5 --batch-size 8 --dtype bfloat16 --rounds 7 {TWO}"
        ),
        "clip_vit_b16_fp32_dynamic": clip(
            B16, f"--method dynamic --keep-ratio 0.27 --batch-size 8 --rounds 9 {TWO}"
        ),
        "llava_small_fp32": Piece(
            "bench-vlm",
            f"--weights random --model llava-small {OF_576} --batch-size 1 4 --method vtp qk_topk --rounds 5 "
            f"--new-tokens 8 {TWO}",
        ),
        "qwen2_5_vl_small_fp32_256": qwen(256, f"{QWEN_SMALL} --rounds 5 --new-tokens 8"),
        "qwen2_5_vl_small_fp32_1024": qwen(1024, f"{QWEN_SMALL} --rounds 3 --new-tokens 4"),
        "qwen2_5_vl_small_fp32_4096": qwen(4096, f"{QWEN_SMALL} --rounds 4 --new-tokens 4"),
        "methods_fp32": Piece("bench-methods", f"--num-tokens 196 576 1024 --rounds 5 {TWO}", plot=False),
        "methods_fp32_batch8": Piece(
            "bench-methods",
            f"--num-tokens 576 --keep-ratio 0.1112 --batch-size 8 --rounds 7 {TWO}",
            plot=False,
        ),
        "methods_fp32_4096": Piece("bench-methods", f"--num-tokens 4096 --rounds 1 {TWO}", plot=False),
        **{
            f"methods_fp32_16384_{part}": Piece(
                "bench-methods", f"--method {names} --num-tokens 16384 --rounds 1 {TWO}", plot=False
            )
            for part, names in PARTS_OF_16384.items()
        },
    },
}


def arguments(name: str, piece: Piece, out: Path) -> list[str]:
    """Those of a piece that writes `out/name.json`, and a picture where it draws one."""
    files = ["--json", f"{out / name}.json", *(["--plot", f"{out / name}.png"] if piece.plot else [])]
    return [*piece.arguments.split(), *files]


def run(name: str, piece: Piece, out: Path) -> None:
    """Run one piece and write its rows as Markdown beside its JSON.

    Raises UsageError if it fails or takes longer than a piece may.
    """
    try:
        command = [*child.start(piece.command), *arguments(name, piece, out)]
        done = child.run(command, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(f"{name} took longer than {LIMIT_S} seconds and was ended") from None
    if done.returncode:
        raise UsageError(f"{name} failed with exit code {done.returncode}; its own message is above")
    write_markdown(out / f"{name}.json")


def write_markdown(path: Path) -> None:
    """A result's table, its command and the machine, beside the JSON file."""
    shown = section(read_result(path), path.parent, "")
    lines = [
        f"# {shown['heading']}",
        "",
        f"{shown['model']}; {shown['device']}; {shown['versions']}; seed {shown['seed']}.",
        "",
        shown["table"],
        "",
        f"```bash\n{shown['command']}\n```",
        "",
    ]
    with replacing(path.with_suffix(".md")) as target:
        target.write_text("\n".join(lines), encoding="utf-8")
