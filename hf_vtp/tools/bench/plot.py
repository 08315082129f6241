"""The picture of a table: what throughput costs."""

from __future__ import annotations

from pathlib import Path

from .cli import replacing
from .variants import UNPATCHED

SUFFIXES = (".png", ".svg", ".pdf")
XLABEL = {
    "keep_ratio": "keep ratio (share of patch tokens left)",
    "cosine_mean": "cosine of the image embedding with the unpruned one (mean)",
}
LABELS = {"keep_ratio": "speed-up over unpatched", "cosine_mean": "keep ratio and speed-up over unpatched"}
# Where a label may stand, in points from its marker, the nearest first: beside it, then ever farther away.
OFFSETS = [
    (7, 0),
    (-7, 0),
    *((x * 7, y) for r in range(7, 90, 7) for y in (r, -r) for x in (1, -1, r / 7, -r / 7)),
]
STEPS = 100  # pieces of a line that labels keep away from
NEAR = 8  # points; from a label farther away a line leads to its marker


def plot(target: Path, title: str, rows: list[dict]) -> None:
    """Throughput against cosine, or against keep ratio where no cosine was measured; one panel a batch size.

    Written whole or not at all, in the format that the suffix names.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
    against = "keep_ratio" if rows[0]["cosine_mean"] is None else "cosine_mean"
    figure = Figure(figsize=(max(7.2, 5.6 * len(sizes)), 5.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)  # no window, and none of pyplot's global state
    panels = figure.subplots(1, len(sizes), squeeze=False)[0]
    points = []
    for axes, size in zip(panels, sizes, strict=True):
        points.append(_panel(axes, against, [row for row in rows if row["batch_size"] == size]))
        axes.set_title(f"batch size {size}", fontsize=10)
    figure.suptitle(title, fontsize=11)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        title=f"labels at the points: {LABELS[against]}",
        loc="outside lower center",
        ncols=min(5, len(names)),
        frameon=False,
    )
    figure.draw_without_rendering()  # settles the layout, which labels are placed in
    for axes, own in zip(panels, points, strict=True):
        place_labels(axes, own)
    with replacing(target) as path:
        figure.savefig(path)


def _panel(axes, against: str, rows: list[dict]) -> list[tuple[float, float, str, str]]:
    """Draw one batch size; (x, y, label, colour) of every point."""
    baseline = next(row for row in rows if row["method"] == UNPATCHED)
    axes.axhline(baseline["images_per_s"], color="0.45", linestyle="--", linewidth=1, label=UNPATCHED)
    points = []
    for i, method in enumerate(dict.fromkeys(row["method"] for row in rows if row is not baseline)):
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["keep_ratio"])
        x, y = [row[against] for row in own], [row["images_per_s"] for row in own]
        axes.plot(x, y, marker="os^Dvp"[i % 6], label=method, color=f"C{i}", linewidth=1.5, markersize=5)
        for row, at in zip(own, x, strict=True):
            ratio = f"{row['keep_ratio']:g}: " if against != "keep_ratio" else ""
            points.append((at, row["images_per_s"], f"{ratio}{row['speedup']:.2f}×", f"C{i}"))
    axes.set_xlabel(XLABEL[against])
    axes.set_ylabel("throughput (images per second)")
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.25)
    return points


def place_labels(axes, points: list[tuple[float, float, str, str]]) -> None:
    """Write each label at the first place where it lies on no marker, no line and no other label."""
    from matplotlib.transforms import Bbox

    pixels = axes.figure.dpi / 72  # in one point
    markers = axes.transData.transform([(x, y) for x, y, *_ in points])
    taken = [Bbox.from_bounds(x, y, 0, 0).padded(4 * pixels) for x, y in markers]
    for line in axes.lines:
        corners = line.get_transform().transform(line.get_xydata())
        for start, stop in zip(corners, corners[1:], strict=False):
            steps = (start + (stop - start) * i / STEPS for i in range(STEPS))
            taken += [Bbox.from_bounds(*step, 0, 0).padded(1) for step in steps]
    for (x, y, text, colour), marker in zip(points, markers, strict=True):
        style = {"textcoords": "offset points", "fontsize": 7.5, "color": colour}
        note = axes.annotate(text, (x, y), xytext=(0, 0), **style)
        extent = note.get_window_extent()
        for dx, dy in OFFSETS:
            left = marker[0] + dx * pixels - (extent.width if dx < 0 else 0)
            below = marker[1] + dy * pixels - extent.height / 2
            box = Bbox.from_bounds(left, below, extent.width, extent.height)
            inside = all(axes.bbox.contains(*corner) for corner in box.corners())
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        note.set(position=(dx, dy), ha="right" if dx < 0 else "left", va="center")
        if max(abs(dx), abs(dy)) > NEAR:
            leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
            axes.annotate("", (x, y), xytext=(dx, dy), arrowprops=leader, **style)
