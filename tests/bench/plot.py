"""The plot of how latency and processor time grow. It needs matplotlib, which nothing else does."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.sizes import Point
from bench.tools import QUICKEST, TUNED

GREY = "#797979"
"""As far from white as from a dark page: the background of the picture is the page's."""
COLOURS = {QUICKEST: "#1f83e0", TUNED: "#d9690f"}
MASTER = "#6d5fd0"

STYLE = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "font.size": 10.5,
    "legend.labelcolor": GREY,
    "svg.fonttype": "path",
    # The same points make the same file.
    "svg.hashsalt": "inosync",
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}

TICKS = {1e-4: "0.1 ms", 1e-3: "1 ms", 1e-2: "10 ms", 0.1: "100 ms", 1.0: "1 s", 10.0: "10 s", 100.0: "100 s"}


def possible() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(points: Sequence[Point], of: Mapping[str, tuple[str, str]], file: Path) -> None:
    """Write the plot to a file, in the format that its name ends with.

    Latency is above, processor time below, each axis in a column; ``of`` says what they are of, by axis.
    """
    # Not imported by name: it is optional, and so would be its types.
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    axes = list(dict.fromkeys(point.axis for point in points))
    with matplotlib.rc_context(STYLE):
        figure, panels = pyplot.subplots(
            2, len(axes), figsize=(0.6 + 3.6 * len(axes), 5.6), sharex="col", sharey="row", squeeze=False
        )
        for column, axis in enumerate(axes):
            here = [point for point in points if point.axis == axis]
            _latency(panels[0][column], here)
            _cpu(panels[1][column], here)
            panels[0][column].set_title(f"latency of {of[axis][0]}", fontsize=11)
            panels[1][column].set_title(f"CPU for {of[axis][1]}", fontsize=11)
            panels[1][column].set_xlabel(axis)
        for panel in panels.flat:
            _finish(panel)
        lines = {line.get_label(): line for panel in panels.flat for line in panel.get_lines()}
        figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=len(lines), frameon=False)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        # No date in it, or each run would change the file.
        metadata = {"Date": None} if file.suffix == ".svg" else {}
        figure.savefig(file, transparent=True, metadata=metadata, dpi=110)
        pyplot.close(figure)


def _latency(panel: Any, points: Sequence[Point]) -> None:
    for tool, some in _by_tool(points).items():
        _line(panel, [(point.size, point.latency) for point in some], tool, COLOURS.get(tool, GREY))


def _cpu(panel: Any, points: Sequence[Point]) -> None:
    for tool, some in _by_tool(points).items():
        _line(panel, [(point.size, point.cost.all) for point in some], tool, COLOURS.get(tool, GREY))
        if tool == QUICKEST:
            own = [(point.size, point.cost.master) for point in some]
            _line(panel, own, "inosync's master alone", MASTER, style="--")


def _line(panel: Any, pairs: Sequence[tuple[int, float]], label: str, colour: str, style: str = "-") -> None:
    # What is too little to be counted has no place on a logarithmic axis, and what never came has none.
    shown = [(x, y) for x, y in pairs if y > 0 and math.isfinite(y)]
    sizes, times = [x for x, _ in shown], [y for _, y in shown]
    panel.plot(sizes, times, style, label=label, color=colour, marker="o", markersize=4, lw=1.8)


def _by_tool(points: Sequence[Point]) -> dict[str, list[Point]]:
    tools = dict.fromkeys(point.tool for point in points)
    return {tool: [point for point in points if point.tool == tool] for tool in tools}


def _finish(panel: Any) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}" if x < 1000 else f"{x / 1000:.0f} k")
    panel.yaxis.set_major_formatter(lambda y, _: TICKS.get(float(f"{y:.3g}"), ""))
    panel.minorticks_off()
    panel.grid(True, color=GREY, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
