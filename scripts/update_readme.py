"""Write the README's tables anew: methods and models from the package, results from model_cards/results."""

import inspect
import json
import re
from pathlib import Path

import readme_quality
import readme_real
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

from hf_vtp import list_families, list_methods
from hf_vtp.families.table import FAMILIES, TOWERS, VISION
from hf_vtp.files import replacing
from hf_vtp.methods.table import PARTS
from hf_vtp.tools.bench.report import measured, number
from hf_vtp.tools.bench.table_vlm import where
from hf_vtp.tools.bench.variants import UNPATCHED
from hf_vtp.tools.cards.card import shown_command
from hf_vtp.tools.commands import COMMANDS
from hf_vtp.towers.units import PackedRow

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "model_cards" / "results"
TESTBED = ROOT / "tests" / "testbed"


def table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def methods() -> str:
    shown = ("summary", "needs", "models", "where", "keep_ratio", "limit", "paper", "differs")
    rows = [
        [f"`{name}`", " + ".join(f"`{row[part]}`" for part in PARTS), *(row[key] for key in shown)]
        for name, row in list_methods().items()
    ]
    headings = [
        "what it does",
        "needs",
        "models",
        "leaves",
        "`keep_ratio`",
        "most tokens",
        "source",
        "differs",
    ]
    return table(["method", "scorer + selector + merger", *headings], rows)


def parts() -> str:
    rows = [
        [part, f"`{name}`", one_line(entry), ", ".join(entry.needs), entry.paper]
        for part, entries in PARTS.items()
        for name, entry in entries.items()
    ]
    return table(["part", "name", "what it does", "needs", "source"], rows)


def one_line(entry) -> str:
    """The first sentence of a part's docstring."""
    text = " ".join(inspect.getdoc(entry.function).split("\n\n")[0].split())
    return text.split(". ")[0].rstrip(".")


def models() -> str:
    """A line for each pattern, with the names of its models as their classes in Transformers begin."""
    groups: dict[str, list[str]] = {}
    for model_type in list_families():
        groups.setdefault(pattern(model_type), []).append(model_type)
    rows = [
        [kind, ", ".join(dict.fromkeys(map(name_of, group))), ", ".join(f"`{name}`" for name in group), where]
        for kind, group in groups.items()
        for where in [list_families()[group[0]]["where"]]
    ]
    rows.append(["any other that puts image features in place of placeholders", "", "", "after the features"])
    return table(["pattern", "models", "`config.model_type`", "tokens leave"], rows)


def pattern(model_type: str) -> str:
    """The pattern of a family in words, by its row."""
    if model_type in VISION:
        paired = any(root != tower for root, tower in VISION.items() if tower == VISION[model_type])
        return "an image and a text, and their towers alone" if paired else "vision towers alone"
    row = FAMILIES[model_type]
    vision = getattr(CONFIG_MAPPING[model_type](), "vision_config", None)
    if isinstance(TOWERS.get(getattr(vision, "model_type", "")), PackedRow):
        return "language models over patches of all images in one sequence"
    cells = callable(row.cell) or row.cell > 1
    return f"language models whose projector works {'cell by cell' if cells else 'row by row'}"


def name_of(model_type: str) -> str:
    """A family as the classes of Transformers call it; of a tower beside a text, that of both."""
    named = CONFIG_MAPPING_NAMES.get(model_type, model_type)
    return re.sub("(Vision)?Config$", "", named)


def commands() -> str:
    return table(["command", "what it does"], [[f"`hf-vtp {name}`", line] for name, line in COMMANDS.items()])


def quality() -> str:
    """The default against the best floor of each cell, and where it falls short."""
    found = readme_quality.cells(ROOT)
    shown = "\n".join(shown_command(command) for command in readme_quality.commands(found))
    rows = table(readme_quality.HEADINGS, readme_quality.table_rows(found))
    return f"{rows}\n\n{readme_quality.summary(found)}\n\n```bash\n{shown}\n```"


def real() -> str:
    """The default on real ImageNet weights, at equal FLOPs."""
    rows = table(readme_real.HEADINGS, readme_real.rows(ROOT))
    return f"{rows}\n\n```bash\n{shown_command(readme_real.command(ROOT))}\n```"


def early() -> str:
    """One early stage: mean cosines at equal measured throughput."""
    result = readme_quality.early(ROOT)
    rows = table(readme_quality.EARLY_HEADINGS, readme_quality.early_rows(result))
    shown = shown_command(result["command"])
    return f"{rows}\n\n{readme_quality.early_summary(result)}\n\n```bash\n{shown}\n```"


def speed() -> str:
    """Every committed benchmark of a whole model, device after device."""
    shown = []
    for device in sorted(RESULTS.iterdir()):
        results = {file: json.loads(file.read_text()) for file in sorted(device.glob("*.json"))}
        for family in SPEED:
            of_family = {file: r for file, r in results.items() if r.get("benchmark") == family}
            shown += [speed_of(file, result) for file, result in of_family.items()]
    return "\n\n".join(shown)


def speed_of(file: Path, result: dict) -> str:
    machine, path = result["environment"], file.relative_to(ROOT).as_posix()
    cores = "" if machine["cuda"] else f", {machine['threads']} threads"
    compiled = ", compiled" if result.get("compile") else ""
    links = [f"[rows]({path})"]
    if file.with_suffix(".png").is_file():
        links.append(f"[plot]({path.removesuffix('.json')}.png)")
    about = f"`{result['model']}`, {result['weights']} weights, {result['dtype']}{compiled}, on "
    about += f"{machine['device_name']}{cores} ({', '.join(links)}):"
    pruned = [row for row in result["rows"] if row["method"] != UNPATCHED]
    columns = [(heading, [cell(row) for row in pruned]) for heading, cell in SPEED[result["benchmark"]]]
    columns = [(heading, cells) for heading, cells in columns if set(cells) != {"n/a"}]
    rows = [list(cells) for cells in zip(*(cells for _, cells in columns), strict=True)]
    command = shown_command(result["command"])
    return f"{about}\n\n{table([heading for heading, _ in columns], rows)}\n\n```bash\n{command}\n```"


def testbed() -> str:
    """Accuracy of the shipped models, one row per task."""
    rows, ratios = [], []
    for file in sorted(TESTBED.glob("*/results.json")):
        result = json.loads(file.read_text())
        unpruned, *_ = measured = result["evaluation"]["rows"]
        ratios = [row["keep_ratio"] for row in measured[1:]]
        for task, first in unpruned["accuracy"].items():
            shares = [f"{row['accuracy'][task]['accuracy']:.3f}" for row in measured]
            rows.append([f"`{result['class']}`", task, f"{first['chance']:.3f}", *shares])
    return table(
        ["model", "task", "chance", "unpruned", *(f"random, keep {ratio:g}" for ratio in ratios)], rows
    )


def pictures() -> str:
    """What scripts/make_pictures.py drew, and whether the model was trained."""
    captions = json.loads((ROOT / "pictures" / "captions.json").read_text())
    notes = {
        True: "Weights: the trained testbed's.",
        False: "Weights: random, so it shows the mechanics only.",
    }
    return "\n\n".join(
        f"![{row['caption'].replace('`', '')}](pictures/{name})\n\n{row['caption']} {notes[row['trained']]}"
        for name, row in captions.items()
    )


WHICH = (
    ("batch", lambda row: str(row["batch_size"])),
    ("method", lambda row: f"`{row['method']}`"),
    ("tokens", lambda row: f"{row['kept_tokens']}/{row['total_tokens']}"),
)
OF_CLIP = (
    *WHICH,
    ("speed-up", number("speedup", 2)),
    ("FLOP ratio", number("flop_ratio", 2)),
    ("efficiency", number("efficiency", 2)),
    ("times the floor", measured("times_floor", 2)),
)
OF_VLM = (
    *WHICH,
    ("pruned", where),
    ("speed-up to the first token", number("ttft_speedup", 2)),
    ("FLOP ratio", number("ttft_flop_ratio", 2)),
    ("speed-up to the last", number("e2e_speedup", 2)),
    ("times the floor", measured("times_floor", 2)),
)
SPEED = {"clip": OF_CLIP, "llava": OF_VLM, "qwen2_5_vl": OF_VLM}  # by a result's "benchmark"

BLOCKS = {
    "real": real,
    "commands": commands,
    "models": models,
    "methods": methods,
    "parts": parts,
    "quality": quality,
    "early": early,
    "speed": speed,
    "testbed": testbed,
    "pictures": pictures,
}


def fill(text: str) -> str:
    """The README's text with every block between `<!-- NAME -->` and `<!-- /NAME -->` made anew."""
    for name, make in BLOCKS.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->\n")
        if not start or not end:
            raise ValueError(f"README.md must have the lines <!-- {name} --> and <!-- /{name} -->")
        text = f"{before}{start}\n{make()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    with replacing(README) as written:
        written.write_text(fill(README.read_text(encoding="utf-8")), encoding="utf-8")
