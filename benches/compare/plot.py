"""The plot of a comparison: one bar chart per workload, shorter is better. Reads JSON from standard input, writes the SVG named.

{"title", "charts": [{"title", "unit", "bars": [{"peer", "median", "least", "most"} or {"peer", "why"}]}]}
"""
import json
import sys

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402 (the backend is chosen first)

from report import number  # noqa: E402

COLUMNS = 3
OURS, OTHERS = "#c2410c", "#94a3b8"


def draw(axes: pyplot.Axes, chart: dict) -> None:
    """One workload."""
    bars = chart["bars"]
    most = max((bar["most"] for bar in bars if "most" in bar), default=1)
    for y, bar in enumerate(bars):
        if "why" in bar:
            axes.text(most * 0.02, y, bar["why"], va="center", color="#b91c1c")
            continue
        axes.barh(y, bar["median"], color=OURS if bar["peer"] == "ringway" else OTHERS)
        axes.plot([bar["least"], bar["most"]], [y, y], color="#334155", linewidth=1)
        axes.text(bar["most"] + most * 0.02, y, number(bar["median"]), va="center")
    axes.set_yticks(range(len(bars)), [bar["peer"] for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlim(0, most * 1.22)
    axes.set_title(f"{chart['title']}\n{chart['unit']}", loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Reads, draws, writes."""
    given = json.load(sys.stdin)
    charts = given["charts"]
    pyplot.rcParams.update({"font.size": 8, "axes.titlesize": 8, "svg.hashsalt": "ringway", "svg.fonttype": "none", "figure.facecolor": "white"})
    rows = -(-len(charts) // COLUMNS)
    figure, grid = pyplot.subplots(rows, COLUMNS, figsize=(12, 1.9 * rows), squeeze=False, layout="constrained")
    for axes, chart in zip(grid.flat, charts):
        draw(axes, chart)
    for axes in list(grid.flat)[len(charts):]:
        axes.set_axis_off()
    figure.suptitle(given["title"], fontsize=9)
    figure.savefig(sys.argv[1], metadata={"Date": None})


main()
