"""Model cards: one template, filled with what the benchmarks and evaluations wrote to their JSON files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..bench.cli import UsageError, reason
from ..bench.variants import UNPATCHED
from .kinds import FAMILY_OF, KINDS, TASKS, Kind, what

MISSING = ("n/a", "-", "")  # cells that hold no measurement
TEMPLATE = Path(__file__).parent / "template.md"
NAMES = ("method", "batch", "image", "keep", "layer", "tokens")  # headings that tell rows apart


@dataclass(frozen=True)
class Measured:
    """A result file: its numbers, what kind they are, and the picture beside it where there is one."""

    path: Path
    result: dict
    kind: Kind

    @property
    def family(self) -> str:
        """Of the model: a benchmark is of one family, an evaluation of answers says of which model type."""
        return FAMILY_OF.get(self.result.get("model_type"), self.kind.family)

    @property
    def picture(self) -> Path | None:
        picture = self.path.with_suffix(".png")
        return picture if picture.is_file() else None


def read_result(path: str | os.PathLike) -> Measured:
    """A benchmark's or an evaluation's JSON file; raises UsageError for one that is neither."""
    path = Path(path)
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        kind = KINDS[result["benchmark"] if "benchmark" in result else f"eval_{result['evaluation']}"]
        measured = Measured(path, result, kind)
        section(measured, path.parent, "")
        list(evaluations(measured))
        measured.kind.model(result)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({reason(error)}); give a result's JSON file") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError):
        kinds = ", ".join(sorted(KINDS))
        raise UsageError(f"{path} is no result of a benchmark or an evaluation ({kinds})") from None
    return measured


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def make_card(
    base_model: str,
    results: Iterable[Measured],
    folder: Path,
    *,
    name: str,
    config_from: str | None = None,
) -> ModelCard:
    """The card of a pruned model. Links in it are relative to `folder`.

    `base_model` is its name on the Hub; `config_from` the repository that holds vtp_config.json, if any.
    Raises UsageError where the results are of several families, or there is none.
    """
    results = list(results)
    families = list(dict.fromkeys(measured.family for measured in results))
    if len(families) != 1:
        raise UsageError(f"a card needs results of one family, not of {len(families)}")
    task, loader, bench = TASKS[families[0]]
    data = ModelCardData(
        base_model=base_model,
        library_name="hf-vtp",
        license="apache-2.0",
        pipeline_tag=task,
        tags=["hf-vtp", "token-pruning", "inference", families[0]],
        model_name=name,
        eval_results=[e for measured in results for e in evaluations(measured)],
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        base_model=base_model,
        link=f"[{base_model}](https://huggingface.co/{base_model})",
        config_from=config_from,
        loader=loader,
        complete=any(speaks_of(measured, base_model) for measured in results),
        sections=[section(measured, folder, base_model) for measured in results],
        bench=f"hf-vtp {bench} --model {base_model} --method vtp qk_topk",
    )


def speaks_of(measured: Measured, base_model: str) -> bool:
    """Whether the numbers were measured on the very weights of `base_model`."""
    result = measured.result
    return result.get("model") == base_model and result.get("weights") == "pretrained"


def section(measured: Measured, folder: Path, base_model: str) -> dict:
    """What the template shows of one result in a card of `base_model`."""
    result, machine = measured.result, measured.result["environment"]
    cores = "" if machine["cuda"] else f", {machine['threads']} threads"
    cuda = f", CUDA {machine['cuda']}" if machine["cuda"] else ""
    versions = ", ".join(f"{n} {machine[n]}" for n in ("hf_vtp", "torch", "transformers", "python"))
    picture = measured.picture
    return {
        "heading": heading(measured, base_model),
        "model": measured.kind.model(result),
        "note": measured.kind.note if result.get("weights", "random") == "random" else "",
        "device": f"{machine['device_name']}{cores}{cuda}, {result['dtype']}",
        "versions": f"{versions}, {machine['platform']}",
        "seed": result["seed"],
        "table": table(measured),
        "command": shown_command(result["command"]),
        "rows": relative(measured.path, folder),
        "picture": picture and relative(picture, folder),
    }


def heading(measured: Measured, base_model: str) -> str:
    """What a result is about; a benchmark's, with the batch and image sizes."""
    if "benchmark" not in measured.result:
        other = (
            "" if speaks_of(measured, base_model) else f" of {measured.result['model']}, not of this model"
        )
        return f"{measured.kind.heading}{other}"
    sizes = []
    for key, word in (("batch_size", "batch"), ("image_size", "image")):
        values = dict.fromkeys(str(row[key]) for row in measured.result["rows"] if key in row)
        sizes += [f"{word} {' and '.join(values)}"] if values else []
    return ", ".join([measured.kind.heading, *sizes])


def table(measured: Measured) -> str:
    """The rows in Markdown: no column without a measurement, an empty cell where a row has none."""
    columns = []
    for heading, cell in measured.kind.columns:
        heading = heading.replace("effi-\n", "effi").replace("-\n", "-").replace("\n", " ")
        cells = [cell(row) for row in measured.result["rows"]]
        if heading in NAMES or any(c not in MISSING for c in cells):
            columns.append([heading, "---", *("" if c in MISSING else escaped(c) for c in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def evaluations(measured: Measured) -> Iterable[EvalResult]:
    """The headline numbers of every row, for the card's model-index; what was not measured is left out."""
    task, _, _ = TASKS[measured.family]
    dataset_type, dataset_name = measured.kind.dataset(measured.result)
    for row in measured.result["rows"]:
        sizes = [f"{key.split('_')[0]} {row[key]}" for key in ("batch_size", "image_size") if key in row]
        sizes = sizes if "benchmark" in measured.result else []  # accuracies do not depend on them
        for key, metric, name in measured.kind.metrics:
            if row.get(key) is None or (row["method"] == UNPATCHED and metric != "accuracy"):
                continue
            yield EvalResult(
                task_type=task,
                dataset_type=dataset_type,
                dataset_name=dataset_name,
                dataset_config=measured.path.stem,
                metric_type=metric,
                metric_name=f"{name} ({', '.join([what(row), *sizes])})",
                metric_value=round(row[key], 4),
            )


def relative(path: Path, folder: Path) -> str:
    """A link from a card in `folder`."""
    return Path(os.path.relpath(path, folder)).as_posix()


def shown_command(command: str) -> str:
    """A long command over several lines, each but the first indented, broken before options."""
    lines, line = [], ""
    for word in re.split(r" (?=--)", command):
        if line and len(line) + len(word) > 100:
            lines.append(line + " \\")
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])


def escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())
