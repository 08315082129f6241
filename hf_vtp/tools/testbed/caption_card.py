"""The CIDEr-D of a trained captioner, unpruned, and the model card that reports it."""

from __future__ import annotations

from pathlib import Path

from ... import metrics
from ...environment import environment
from ..evaluation.cases import Case
from ..evaluation.vlm import Answerer
from ..models import Loaded
from ..prompts import Prompts
from .caption_data import HELD_OUT, captioned_batches, open_split
from .captioner import LONGEST
from .card import write_files

QUESTION = "Describe the image."  # its template puts the same token for whatever is asked


def measure(captioner: Loaded, source: str, num: int) -> dict:
    """CIDEr-D of greedy captions of the first `num` held-out pictures of `source`."""
    answerer = Answerer(captioner.model, Prompts(captioner.model, captioner.processor), LONGEST + 1)
    data = open_split(source, HELD_OUT)
    data.limit = num
    predictions, references = [], []
    for images, captions in captioned_batches(data, "evaluate"):
        inputs, counts = answerer.inputs(images, [QUESTION] * len(images), Case())
        predictions += answerer(Case(), inputs, counts)[0]
        references += captions
    found = metrics.load("cider").compute(predictions=predictions, references=references)
    pairs = zip(predictions[:3], references, strict=False)
    examples = [{"caption": text, "reference": right[0]} for text, right in pairs]
    return {"num": len(predictions), **found, "examples": examples}


def write(folder: Path, captioner: Loaded, run: dict, evaluation: dict) -> dict:
    """Write the results and the card, with `run`, how the model was trained; returns the results."""
    result = {
        "testbed": "captions",
        "class": type(captioner.model).__name__,
        "parameters": sum(weight.numel() for weight in captioner.model.parameters()),
        **run,
        "evaluation": evaluation,
        "environment": environment(captioner.model.device),
    }
    write_files(folder, result, card(result))
    return result


def card(result: dict) -> str:
    """The model card in Markdown, from the contents of RESULTS."""
    evaluation, machine = result["evaluation"], result["environment"]
    last, num = result["last"], evaluation["num"]
    examples = "\n".join(f"| {e['caption']} | {e['reference']} |" for e in evaluation["examples"])
    return f"""---
library_name: transformers
---

# A captioner over a frozen tower, of hf_vtp's testbed

{result["parameters"]:,} parameters in float16: the vision tower of `{result["tower"]}`, which learned
nothing, a new projector, and a Llama of {result["layers"]} layers of width {result["width"]} that knows
{result["words"]:,} words. It was trained on the {result["pictures"]:,} captioned photographs of
`{result["captions"]}` to tell methods of token pruning apart, and is for nothing else. It inherits the
licences of the tower and of the photographs.

CIDEr-D of greedy captions of {num:,} held-out photographs, unpruned: **{evaluation["cider"]:.4f}** (words in
lower case, neither stemmed nor split as the COCO evaluation does).

| caption | first reference |
| --- | --- |
{examples}

- Command: `{result["command"]}`
- Recipe `{result["recipe"]}`, seed {result["seed"]}: {result["steps"]:,} steps of {result["batch_size"]}
  photographs, all captions of each in one row. The weights are those after the last step; no held-out number
  chose them. Held-out cross-entropy of a word after that step: {last["held_out"]}.
- Time: {result["seconds"] / 60:.0f} minutes, without the tower's features, on {machine["device_name"]},
  threads: {result["threads"]}{result["note"]}.
- Versions: torch {machine["torch"]}, Transformers {machine["transformers"]}.

What pruning costs it: `hf-vtp eval-vlm --model THIS_FOLDER --data CAPTIONS --split validation --question
"{QUESTION}" --metric cider --max-new-tokens {LONGEST + 1}`.
"""
