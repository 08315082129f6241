"""The leaderboard's picture: relative quality of every row with its interval, and by model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..bench.cli import replacing
from .contestants import DEFAULT
from .overall import OfModel, Standing
from .table import Table

COLOURS = {"default": "#c23b22", "baseline": "0.45", "other": "#1f5f8b"}


def draw(
    target: Path, tables: Sequence[Table], models: Sequence[OfModel], order: list[Standing], baselines: tuple
) -> None:
    """Rows from the best mean rank down: mean relative quality at the left, by model at the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(6.6 + 0.72 * len(tables), 2.6 + 0.21 * len(order)), dpi=150, layout="constrained"
    )
    FigureCanvasAgg(figure)  # no window, and none of pyplot's global state
    widths = [5.0, 0.3 + 0.72 * len(tables)]
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": widths})
    colours = [COLOURS[kind(one.row, baselines)] for one in order]
    _dots(left, order, colours)
    _heat(figure, right, tables, models, order)
    left.set_yticks(range(len(order)), [one.row for one in order], fontsize=7.5)
    for label, colour in zip(left.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
    left.set_ylim(len(order) - 0.5, -0.5)
    figure.suptitle("Quality relative to the unpruned model; rows by mean rank, the best first", fontsize=10)
    handles, names = left.get_legend_handles_labels()
    style = {
        "loc": "outside lower center",
        "ncols": 3,
        "fontsize": 7.5,
        "title_fontsize": 8,
        "frameon": False,
    }
    figure.legend(handles, names, title="Grey cells: not run, or above the budget of its points.", **style)
    with replacing(target) as path:
        figure.savefig(path)


def kind(row: str, baselines: tuple) -> str:
    return "default" if row == DEFAULT else "baseline" if row in baselines else "other"


def _dots(axes, order: list[Standing], colours: list[str]) -> None:
    for i, (one, colour) in enumerate(zip(order, colours, strict=True)):
        axes.plot(one.quality_ends, (i, i), color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot([one.quality], [i], marker="o", markersize=4, color=colour)
    names = {"default": "the default", "baseline": "baselines", "other": "other methods"}
    for name, text in names.items():
        axes.plot([], [], marker="o", markersize=4, linestyle="", color=COLOURS[name], label=text)
    axes.set_xlabel("mean over models, 95 % interval", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)


def _heat(figure, axes, tables: Sequence[Table], models: Sequence[OfModel], order: list[Standing]) -> None:
    values = np.full((len(order), len(tables)), np.nan)
    for j, one in enumerate(models):
        for i, standing in enumerate(order):
            if standing.row in one.rows:
                own = one.qualities[one.rows.index(standing.row), :, 0]
                if not np.isnan(own).all():
                    values[i, j] = np.nanmean(own)
    low = np.nanpercentile(values, 5)
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=max(1.0, np.nanmax(values)))
    for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
        bright = (values[i, j] - low) / max(1e-9, image.norm.vmax - low) > 0.6
        text = f"{values[i, j]:.2f}".removeprefix("0")
        axes.text(j, i, text, ha="center", va="center", fontsize=6, color="black" if bright else "white")
    names = [table.entry.name.replace("_", "\n", 1) for table in tables]
    axes.set_xticks(range(len(tables)), names, fontsize=7, rotation=0)
    axes.tick_params(axis="y", length=0)
    axes.set_facecolor("0.93")  # not run, or over its budget
    axes.set_xlabel("mean over a model's points", fontsize=8)
