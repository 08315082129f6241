"""The picture of a table: quality against throughput, and against tokens."""

from __future__ import annotations

from pathlib import Path

from ..bench.cli import replacing
from .cases import DOWNSAMPLE, UNPRUNED, amount

AGAINST = {
    "kept_tokens": "image tokens kept",
    "images_per_s": "throughput (images per second)",
    "questions_per_s": "throughput (questions per second)",
}


def frontier(points: list[tuple[float, float]], rising: bool) -> list[tuple[float, float]]:
    """The points (cost, quality) that no other beats in both, by cost; `rising`: more of it is better."""
    best, undominated = float("-inf"), []
    for x, y in sorted(points, key=lambda p: (-p[0] if rising else p[0], -p[1])):
        if y > best:
            best = y
            undominated.append((x, y))
    return sorted(undominated)


def plot(target: Path, title: str, rows: list[dict], metric: str, speed: str) -> None:
    """Two panels that share the quality axis; lines join a method's ratios, a grey one the Pareto frontier.

    In the first panel the slowest and the fastest row of a line bear their ratio. The file is written whole
    or not at all, in the format that the suffix names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no window, and none of pyplot's global state
    panels = figure.subplots(1, 2, sharey=True)
    for axes, x in zip(panels, (speed, "kept_tokens"), strict=True):
        _panel(axes, rows, metric, x)
    panels[0].set_ylabel(metric)
    figure.suptitle(title, fontsize=10)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    with replacing(target) as path:
        figure.savefig(path)


# matplotlib's ten, and more for tables with many methods
COLOURS = [f"C{i}" for i in range(10)] + ["#8c6d31", "#393b79", "#7b4173", "#637939", "#843c39", "#e7ba52"]


def _panel(axes, rows: list[dict], metric: str, x: str) -> None:
    rising = x != "kept_tokens"
    best = frontier([(row[x], row[metric]) for row in rows], rising)
    axes.plot(*zip(*best, strict=True), color="0.8", linewidth=6, zorder=0, label="Pareto frontier")
    groups = dict.fromkeys((row["method"], row["layer"]) for row in rows)
    for i, (method, layer) in enumerate(groups):
        own = [row for row in rows if (row["method"], row["layer"]) == (method, layer)]
        own.sort(key=lambda row: row[x])
        name = method if method in (UNPRUNED, DOWNSAMPLE) else f"{method}, layer {layer}"
        style = {
            "marker": "os^Dvp*X"[i % 8],
            "color": COLOURS[i % len(COLOURS)],
            "markersize": 5,
            "linewidth": 1,
        }
        axes.plot([row[x] for row in own], [row[metric] for row in own], label=name, **style)
        ends = [row for row in (own[0], own[-1]) if row["keep_ratio"] is not None]
        for row in ends if rising else ():  # the other panel's axis tells the ratio
            at = (row[x], row[metric])
            axes.annotate(amount(row).split()[-1], at, (3, 3), textcoords="offset points", fontsize=6)
    axes.set_xlabel(AGAINST[x])
    if not rising:
        axes.invert_xaxis()  # to the right is cheaper in both panels
    axes.grid(alpha=0.25)
