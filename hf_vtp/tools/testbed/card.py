"""The accuracy of a trained model, unpruned and without random tokens, and the model card that reports it."""

from __future__ import annotations

import json
from pathlib import Path

from tqdm import tqdm

from ...config import VTPConfig
from ...environment import environment
from ..bench.cli import replacing
from ..cases import pruned_as
from ..models import Loaded
from .backgrounds import BACKGROUNDS
from .evaluate import SEED, accuracy_by_type, answers, asked, classified, zero_shot
from .questions import CLASSES

KEEP_RATIOS = (None, 0.7, 0.5, 0.25, 0.1)  # None: unpruned
RESULTS, CARD = "results.json", "README.md"


def measure(testbed: Loaded, num: int, seed: int = SEED) -> dict:
    """Accuracy over `num` fresh test scenes by keep ratio of `random`, at the library's own layer."""
    clip = testbed.model_type == "clip"
    items = list(classified(num, seed) if clip else asked(num, seed, testbed.model_type == "qwen2_5_vl"))

    def accuracies() -> dict:
        if clip:
            return {
                "zero-shot": {"accuracy": zero_shot(testbed, items), "num": num, "chance": 1 / len(CLASSES)}
            }
        return accuracy_by_type(items, answers(testbed, items))

    rows = []
    for ratio in tqdm(KEEP_RATIOS, desc="evaluate", disable=None):
        config = None if ratio is None else VTPConfig(method="random", keep_ratio=ratio)
        with pruned_as(testbed.model, config):
            rows.append({"keep_ratio": ratio, "accuracy": accuracies()})
    return {"split": "test", "seed": seed, "num": num, "rows": rows}


def write(folder: Path, testbed: Loaded, run: dict, evaluation: dict) -> dict:
    """Write RESULTS and CARD, with `run`, how the model was trained; returns the contents of RESULTS."""
    parameters = sum(weight.numel() for weight in testbed.model.parameters())
    result = {
        "testbed": testbed.model_type,
        "class": type(testbed.model).__name__,
        "parameters": parameters,
        **run,
        "backgrounds": {split: list(names) for split, names in BACKGROUNDS.items()},
        "evaluation": evaluation,
        "environment": environment(testbed.model.device),
    }
    write_files(folder, result, card(result))
    return result


def write_files(folder: Path, result: dict, text: str) -> None:
    """Write RESULTS and the card's text, each whole or not at all."""
    for name, content in ((RESULTS, json.dumps(result, indent=1) + "\n"), (CARD, text)):
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


def card(result: dict) -> str:
    """The model card in Markdown, from the contents of RESULTS."""
    names = {split: ", ".join(f"`{name}`" for name in result["backgrounds"][split]) for split in BACKGROUNDS}
    evaluation, machine = result["evaluation"], result["environment"]
    minutes = result["seconds"] / 60
    return f"""---
license: apache-2.0
library_name: transformers
---

# {result["class"]} of hf_vtp's testbed

{result["parameters"]:,} parameters in float16, trained from a seed on drawn scenes, to tell methods of token
pruning apart. It knows nothing else. {ABOUT[result["testbed"]]}

| | chance | scenes | {" | ".join(_heading(row) for row in evaluation["rows"])} |
| --- | --- | --- | {" | ".join("---" for _ in evaluation["rows"])} |
{_table(evaluation["rows"])}

Measured on {evaluation["num"]:,} fresh scenes (seed {evaluation["seed"]}) over photographs that are not in
training; pruned rows use `apply_vtp(model, method="random", keep_ratio=...)` at the default layers of then.
A task near its chance level was not learned and says nothing about a method.

- Command: `{result["command"]}`
- Recipe `{result["recipe"]}`, seed {result["seed"]}: {result["steps"]:,} steps of
  {result["batch_size"]} scenes, none of them drawn twice.
- Time: {minutes:.0f} minutes on {machine["device_name"]}, threads: {result["threads"]}{result["note"]}.
- Versions: torch {machine["torch"]}, Transformers {machine["transformers"]}.
- Backgrounds, all in the scikit-image wheel and CC0, in the public domain or without known restrictions:
  {names["train"]} for training; held out for testing {names["test"]}.
- Everything else in a scene is drawn by `hf_vtp/tools/testbed/scenes.py`, with Pillow's own font.
"""


QUESTIONS = """Questions: color, shape, count, where one thing is from
another, the printed word, the printed number; an answer counts if it is exactly right.
"""
ABOUT = {
    "clip": f"""Zero-shot classification: one shape in the picture and
{len(CLASSES)} captions such as `a red circle`. In training they name up to four shapes and the writing.""",
    "llava": QUESTIONS + "The vision tower began with the weights of the testbed's CLIP.",
    "qwen2_5_vl": QUESTIONS
    + "Sides of 96 to 144 pixels; windows of 8 × 8 patches, blocks 2 and 5 see the whole picture, m-RoPE.",
}


def _heading(row: dict) -> str:
    return "unpruned" if row["keep_ratio"] is None else f"random, keep {row['keep_ratio']}"


def _table(rows: list[dict]) -> str:
    lines = []
    for kind, first in rows[0]["accuracy"].items():
        cells = " | ".join(f"{row['accuracy'][kind]['accuracy']:.3f}" for row in rows)
        lines.append(f"| {kind} | {first['chance']:.3f} | {first['num']} | {cells} |")
    return "\n".join(lines)
