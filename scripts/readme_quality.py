"""The README's tables of quality: the default against the best floor of each cell, and at equal speed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from hf_vtp.tools.evaluation.cases import BASELINES

RESULTS = Path("model_cards/results/cpu-2core")  # below the repository's root
RUNS = {  # files of eval_clip.py and eval_vlm.py, the model as the table names it
    "eval_testbed_clip.json": "testbed CLIP, zero-shot",
    "eval_testbed_llava.json": "testbed LLaVA, answers",
    "eval_testbed_qwen2_5_vl.json": "testbed Qwen2.5-VL, answers",
    "eval_cifar_clip.json": "CIFAR-10 CLIP, zero-shot",
    "eval_cifar_llava.json": "CIFAR-10 LLaVA, answers",
}
EARLY = "eval_testbed_clip_early.json"  # of eval_clip.py, one stage after the first layer
EARLY_RATIOS = (0.7, 0.5)
WHERE = {"default": "early in the tower", "output": "after the tower"}
METRIC = {"clip": "top_1", "vlm": "exact_match"}
EARLY_METRIC = "cosine_mean"
OURS, PLAIN = "vtp", "qk_topk"
MARGIN = -0.01  # what the lower end of an interval may lack to the best floor
HEADINGS = ["model", "leave", "keep", f"`{OURS}`", "best floor", "difference", "95 % interval", f"`{PLAIN}`"]
EARLY_HEADINGS = ["row", "keep", "speed-up", "its mean cosine", f"`{OURS}` at that speed", "difference"]


def cells(root: Path) -> list[dict]:
    """One dict for each model, place and ratio: the numbers of the methods, and the paired difference."""
    found = []
    for file, name in RUNS.items():
        result = json.loads((root / RESULTS / file).read_text())
        metric = METRIC[result["evaluation"]]
        by_row = {(row["method"], row["keep_ratio"], row["layer"]): row[metric] for row in result["rows"]}
        for compared in result["comparisons"]:
            if compared["method"] != OURS or compared["metric"] != metric:
                continue
            cell = (compared["keep_ratio"], compared["layer"])
            scores = {name: by_row[(name, *cell)] for name in (OURS, PLAIN, *BASELINES)}
            scores["downsample"] = by_row["downsample", cell[0], "-"]
            numbers = {"ours": scores.pop(OURS), "plain": scores.pop(PLAIN), "floors": scores}
            found.append({"model": name, "result": result, **compared, **numbers})
    return found


def where(layer: str) -> str:
    return WHERE.get(layer) or f"after layers {layer.replace(',', ' and ')}"


def table_rows(found: list[dict]) -> list[list[str]]:
    return [
        [
            cell["model"],
            where(cell["layer"]),
            f"{cell['keep_ratio']:g}",
            f"{cell['ours']:.3f}",
            f"{cell['floors'][cell['best_floor']]:.3f} (`{cell['best_floor']}`)",
            f"{cell['difference']:+.4f}",
            f"{cell['low']:+.4f} to {cell['high']:+.4f}",
            f"{cell['plain']:.3f}",
        ]
        for cell in found
    ]


def summary(found: list[dict]) -> str:
    """Means over all cells, and every cell that falls short."""
    floors = {floor: fmean(cell["floors"][floor] for cell in found) for floor in found[0]["floors"]}
    best = max(floors, key=floors.get)
    several = ", ".join(f"`{floor}` {value:.4f}" for floor, value in floors.items())
    short = [(cell, f"{cell['low']:+.4f}") for cell in found if cell["low"] < MARGIN]
    losing = [
        (cell, f"{cell['ours']:.4f} to {cell['plain']:.4f}")
        for cell in found
        if cell["ours"] <= cell["plain"]
    ]
    ours, plain = fmean(cell["ours"] for cell in found), fmean(cell["plain"] for cell in found)
    return (
        f"Mean over the {len(found)} cells: `{OURS}` {ours:.4f}, `{PLAIN}` {plain:.4f}; of the floors "
        f"{several} (the best single one: `{best}`).\n\n"
        f"Cells whose interval reaches below {MARGIN:+.2f}, so that `{OURS}` may lose more than a point to "
        f"the best floor: {said(short)}.\n\nCells in which `{PLAIN}` is as good or better: {said(losing)}."
    )


def said(cells: list[tuple[dict, str]]) -> str:
    return (
        "; ".join(
            f"{cell['model'].split(',')[0]}, {where(cell['layer'])}, keep {cell['keep_ratio']:g} ({number})"
            for cell, number in cells
        )
        or "none"
    )


def commands(found: list[dict]) -> list[str]:
    """The command of every run, each once."""
    return list(dict.fromkeys(cell["result"]["command"] for cell in found))


def early(root: Path) -> dict:
    return json.loads((root / RESULTS / EARLY).read_text())


def early_compared(result: dict) -> list[dict]:
    """Every other row of the early stage, and the default at the throughput that row was measured to have."""
    return [
        row
        for row in result["equal_throughput"]
        if (row["method"], row["metric"]) == (OURS, EARLY_METRIC) and row["other_keep_ratio"] in EARLY_RATIOS
    ]


def early_rows(result: dict) -> list[list[str]]:
    return [
        [
            f"`{row['other']}`",
            f"{row['other_keep_ratio']:g}",
            f"{row['speedup']:.2f}",
            f"{row['other_value']:.4f}",
            f"{row['value']:.4f}",
            f"{row['difference']:+.4f}",
        ]
        for row in early_compared(result)
    ]


def early_summary(result: dict) -> str:
    """What the default itself has at those ratios, and every row that is better at its speed."""
    own = [row for row in result["rows"] if row["method"] == OURS and row["keep_ratio"] in EARLY_RATIOS]
    itself = "; ".join(
        f"keep {row['keep_ratio']:g}: {row['speedup']:.2f} times as fast, "
        f"FLOP ratio {row['flop_ratio']:.2f}, mean cosine {row[EARLY_METRIC]:.4f}"
        for row in own
    )
    ahead = "; ".join(
        f"`{row['other']}` at keep {row['other_keep_ratio']:g} ({row['difference']:+.4f})"
        for row in early_compared(result)
        if row["difference"] < 0
    )
    return f"`{OURS}` itself: {itself}. Rows that are better at their speed: {ahead or 'none'}."
