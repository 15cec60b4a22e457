"""What was measured, as a table in Markdown: medians with their spread, the best cell of each row, losses as they are."""
import dataclasses
import statistics
from collections.abc import Callable

from load import WORKLOADS, Figures

ERRORS_MAX_PERCENT = 1


@dataclasses.dataclass(frozen=True)
class Metric:
    """A row: its name, and whether less or more is better, if either is."""

    title: str
    best: Callable[[list[float]], float] | None


METRICS = {
    "cpu_us": Metric("CPU µs per request", min),
    "rate": Metric("requests/s", max),
    "p50_ms": Metric("p50, ms", min),
    "p99_ms": Metric("p99, ms", min),
    "idle_kib": Metric("KiB RSS per idle connection", min),
    "rss_mib": Metric("RSS, MiB", min),
    "busy_percent": Metric("proxy's CPU busy, %", None),
    "others_percent": Metric("CPU that other programs took, %", None),
    "errors": Metric("errors, all rounds", None),
}
SUBJECT = "ringway"


@dataclasses.dataclass
class Results:
    """Everything that a run has found out. A cell is a workload and a peer; it has samples, or a fault
    (`fails: why`, `not installed: why`, `not measured: why`), or both."""

    peers: list[str]
    workloads: list[str]
    samples: dict[tuple[str, str], list[Figures]] = dataclasses.field(default_factory=dict)
    faults: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    rate: int = 0

    def values(self, workload: str, peer: str, metric: str) -> list[float]:
        """One figure of all rounds."""
        return [sample[metric] for sample in self.samples.get((workload, peer), []) if metric in sample]

    def sound(self, workload: str, peer: str) -> bool:
        """Whether a peer's figures may be compared: it had no fault, and hardly an error."""
        errors = sum(self.values(workload, peer, "errors"))
        return (workload, peer) not in self.faults and errors * 100 <= ERRORS_MAX_PERCENT * max(1, sum(self.values(workload, peer, "requests")))

    def word(self, workload: str, peer: str) -> str:
        """What stands for figures that there are not."""
        return self.faults.get((workload, peer), "–").partition(":")[0]

    def medians(self, workload: str, metric: str) -> dict[str, float]:
        """Of each peer whose figures may be compared."""
        found = {peer: self.values(workload, peer, metric) for peer in self.peers if self.sound(workload, peer)}
        return {peer: statistics.median(values) for peer, values in found.items() if values}


def number(value: float) -> str:
    """Three digits that count, and no more."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def ratio(results: Results, workload: str, metric: str) -> str:
    """Ringway's median by the best of the others."""
    medians, best = results.medians(workload, metric), METRICS[metric].best
    others = [value for peer, value in medians.items() if peer != SUBJECT]
    if best is None or SUBJECT not in medians or not others or best(others) <= 0:
        return ""
    return f"{medians[SUBJECT] / best(others):.2f}"


def headline(workload: str) -> str:
    """The figure of a workload to trust, and to show first."""
    return "idle_kib" if workload == "idle" else "cpu_us"


def row(results: Results, workload: str, metric: str, title: str, spread: bool) -> str:
    """One row: a cell for each peer, and the ratio."""
    medians, best, cells = results.medians(workload, metric), METRICS[metric].best, []
    winner = number(best(list(medians.values()))) if best and medians else None
    for peer in results.peers:
        values = results.values(workload, peer, metric)
        if not values:
            cells.append(results.word(workload, peer))
            continue
        if metric == "errors":
            text = f"{sum(values):,.0f}"
        else:
            text = number(statistics.median(values))
            text = f"**{text}**" if text == winner and peer in medians else text
            if spread and len(values) > 1:
                text += f" ({number(min(values))} – {number(max(values))})"
        cells.append(text if results.sound(workload, peer) else f"{text} †")
    return f"| {title} | {' | '.join(cells)} | {ratio(results, workload, metric)} |"


def table(results: Results, first: str, names: dict[str, str], rows: list[str]) -> list[str]:
    """A table with a column for each peer, called by its name and version."""
    head = f"| {first} | {' | '.join(names[peer] for peer in results.peers)} | Ringway / best other |"
    return [head, "|---|" + "--:|" * (len(results.peers) + 1), *rows, ""]


def markdown(results: Results, names: dict[str, str], facts: list[str]) -> str:
    """The part of the document that is made by the run; `facts` are its first lines."""
    titles = {name: WORKLOADS[name].title + (" (KiB each)" if name == "idle" else "") for name in results.workloads}
    rows = [row(results, name, headline(name), title, False) for name, title in titles.items()]
    lines = [*facts, "", "## CPU µs per request", "", "![CPU per request, side by side](comparison.svg)", "",
             *table(results, "Workload", names, rows), "## All figures", "", "Median (least – most) of the rounds.", ""]
    for name in results.workloads:
        workload = WORKLOADS[name]
        offered = f"; {results.rate:,} requests/s offered" if workload.open_loop else ""
        lines += [f"### {workload.title}", "", f"`{name}`, load by {workload.tool}{offered}.", ""]
        metrics = [metric for metric in METRICS if any(results.values(name, peer, metric) for peer in results.peers)]
        if metrics:
            lines += table(results, "", names, [row(results, name, metric, METRICS[metric].title, True) for metric in metrics])
        faults = {fault: [peer for peer in results.peers if results.faults.get((name, peer)) == fault] for fault in results.faults.values()}
        lines += [f"* {', '.join(peers)} {fault}" for fault, peers in faults.items() if peers] + [""]
    return "\n".join(lines).replace("\n\n\n", "\n\n").strip() + "\n"


def charts(results: Results) -> list[dict]:
    """What plot.py draws: the headline of each workload."""
    found = []
    for name in results.workloads:
        bars: list[dict] = []
        for peer in results.peers:
            values = results.values(name, peer, headline(name))
            spread = {"median": statistics.median(values), "least": min(values), "most": max(values)} if values else {"why": results.word(name, peer)}
            bars.append({"peer": peer, **spread})
        found.append({"title": WORKLOADS[name].title, "unit": METRICS[headline(name)].title, "bars": bars})
    return found
