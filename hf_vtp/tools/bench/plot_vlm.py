"""The picture of a vision-language benchmark: time to the first token against what FLOPs allow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .cli import replacing
from .plot import place_labels
from .table_vlm import where
from .variants import UNPATCHED

RATIO = "keep ratio (share of visual tokens left)"
TOKENS = "visual tokens of the image, before pruning"


def plot(target: Path, title: str, rows: list[dict]) -> None:
    """Speed-up to the first token, measured and by FLOPs, against keep ratio, or image size if several.

    One panel for each batch size (and keep ratio). Written whole or not at all, in the format that the suffix
    names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pruned = [row for row in rows if row["method"] != UNPATCHED]
    sizes = len({row["image_size"] for row in rows}) > 1
    across = "total_tokens" if sizes else "keep_ratio"
    panel: Callable = lambda row: (row["batch_size"], row["keep_ratio"] if sizes else None)  # noqa: E731
    keys = list(dict.fromkeys(map(panel, pruned)))
    figure = Figure(figsize=(max(7.2, 5.2 * len(keys)), 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no window, and none of pyplot's global state
    axes = figure.subplots(1, len(keys), squeeze=False)[0]
    points = [
        _draw(ax, across, [row for row in pruned if panel(row) == key])
        for ax, key in zip(axes, keys, strict=True)
    ]
    for ax, (batch, ratio) in zip(axes, keys, strict=True):
        ax.set_title(f"batch size {batch}" + (f", keep ratio {ratio:g}" if sizes else ""), fontsize=10)
        ax.set_xlabel(TOKENS if sizes else RATIO)
    axes[0].set_ylabel("speed-up to the first token over unpatched")
    figure.suptitle(title, fontsize=11)
    handles, names = axes[0].get_legend_handles_labels()
    columns = [*handles[::2], *handles[1::2]], [*names[::2], *names[1::2]]  # measured left, bounds right
    figure.legend(*columns, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.draw_without_rendering()  # settles the layout, which labels are placed in
    for ax, own in zip(axes, points, strict=True):
        place_labels(ax, own)
    with replacing(target) as path:
        figure.savefig(path)


def _draw(axes, across: str, rows: list[dict]) -> list[tuple[float, float, str, str]]:
    """Draw one panel; (x, y, label, colour) of every measured point."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    ticks = sorted({row[across] for row in rows})
    if across == "total_tokens":
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.axhline(1, color="0.45", linestyle=":", linewidth=1)
    points = []
    for i, line in enumerate(dict.fromkeys(map(_line, rows))):
        own = sorted((row for row in rows if _line(row) == line), key=lambda row: row[across])
        x, y = [row[across] for row in own], [row["ttft_speedup"] for row in own]
        style = {"color": f"C{i}", "marker": "os^Dvp"[i % 6], "markersize": 5}
        axes.plot(x, y, label=f"{line}, measured", linewidth=1.5, **style)
        bound = [row["ttft_flop_ratio"] for row in own]
        axes.plot(x, bound, label=f"{line}, by FLOPs", linewidth=1, linestyle="--", mfc="none", **style)
        points += [(at, up, f"{up:.2f}×", f"C{i}") for at, up in zip(x, y, strict=True)]
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.25)
    return points


def _line(row: dict) -> str:
    if not row["layers"]:
        return f"{row['method']}, after the features"
    if row["layer"] == "output":
        return f"{row['method']}, after the tower"
    return f"{row['method']}, in the tower (block {where(row)})"
