"""Tables that report ensembles: Table 3, how often members were chosen, what a linear meta-classifier has learned."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepser.scores.metrics import ScoreRow
from deepser.scores.report import number, shown_scores
from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.bootstrap import Interval
from ensemble.evaluation.markdown import title_of
from ensemble.experiments.compare import Comparison
from ensemble.fusion.learned import Learned

CLASS_SCORES, ATTRIBUTE_SCORES = ("macro_f1", "uar", "accuracy"), ("mean_ccc",)
SHORT = {"macro_f1": "F1", "macro_f1_present": "F1 of\npresent", "uar": "UAR", "accuracy": "acc."}
WITH_INTERVAL = ("macro_f1", "uar", "mean_ccc")  # in a terminal; JSON and Markdown have all


def comparison_table(comparison: Comparison) -> Group:
    """Return per part a table of class scores, and one of the mean CCC where there are attributes, with intervals."""
    shown: list[RenderableType] = []
    for part, columns in comparison.parts.items():
        every = [row for rows in columns.values() for row in rows.values()]
        for scores in (CLASS_SCORES, ATTRIBUTE_SCORES):
            hidden = comparison.attribute_rows if scores == CLASS_SCORES else ()
            columns_shown = shown_scores([row for row in every if row.name not in hidden], scores)
            if columns_shown:
                ends = comparison.intervals.get(part, {})
                shown.append(_scores_table(f"{part}: {_titles(columns_shown)}", columns, columns_shown, hidden, ends))
    if comparison.n_resamples:
        shown.append(Text(f"95 % intervals from {comparison.n_resamples:,} resamples of the speakers", style="dim"))
    chosen = {column: passes for column, passes in comparison.chosen.items() if column != str(len(comparison.members))}
    if chosen:
        shown.append(_chosen_table(comparison.members, chosen))
    return Group(*shown)


def _titles(scores: Sequence[str]) -> str:
    *names, last = map(title_of, scores)
    return f"{', '.join(names)} and {last}" if names else last


def _scores_table(
    title: str,
    columns: Mapping[str, Mapping[str, ScoreRow]],
    scores: Sequence[str],
    hidden: Sequence[str],
    ends: Mapping[str, Mapping[str, Mapping[str, Interval]]],
) -> Table:
    """Return a row for each way of fusing: for each set of members its scores, the best of a column bold."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    several = len(scores) > 1
    for column in columns:
        for score in scores:
            table.add_column(f"{column}\n{SHORT[score]}" if several else column, justify="right", no_wrap=True)
    names = [name for name in next(iter(columns.values())) if name not in hidden]
    for name in names:
        cells = []
        for column, rows in columns.items():
            for score in scores:
                value = rows[name].scores.get(score, math.nan)
                best = max((rows[other].scores.get(score, math.nan) for other in names), key=_order)
                interval = ends.get(column, {}).get(name, {}).get(score) if score in WITH_INTERVAL else None
                text = "\n".join(filter(None, (number(value), _short(interval))))
                cells.append(Text(text, style="bold" if number(value) == number(best) else ""))
        table.add_row(Text(name), *cells)
    return table


def _short(interval: Interval | None) -> str:
    """Return an interval in few characters: .402-.460."""
    if interval is None or math.isnan(interval.low):
        return ""
    low, high = (f"{end:.3f}".replace("0.", ".") for end in (interval.low, interval.high))
    return f"{low} to {high}" if interval.low < 0 else f"{low}-{high}"


def _order(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _chosen_table(members: Sequence[str], chosen: dict[str, dict[str, tuple[str, ...]]]) -> Table:
    """In how many of the passes each member was chosen."""
    table = Table(title="chosen in so many passes", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("member")
    for column, passes in chosen.items():
        table.add_column(f"{column}\nof {len(passes)}", justify="right")
    times = {column: Counter(m for own in passes.values() for m in own) for column, passes in chosen.items()}
    for member in members:
        counts = [str(times[column][member] or "") for column in chosen]
        table.add_row(Text(member.removeprefix(PREFIX)), *counts)
    return table


def learned_tables(learned: Learned, attributes: Collection[str] = ()) -> Group:
    """Return the weights, and the reliabilities, by member and class or attribute; the largest of a column bold.

    attributes: those of the columns that are no classes.
    """
    has_classes, has_attributes = (any((name in attributes) == is_one for name in learned.columns) for is_one in (0, 1))
    reliabilities = [*["F1 by class"] * has_classes, *["CCC by attribute"] * has_attributes]
    tables = []
    for title, values in (
        ("what the meta-classifier learned: weight of each member, by class", learned.weights),
        (f"reliability: {' and '.join(reliabilities)}", learned.reliability),
    ):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        table.add_column("member")
        for column in learned.columns:
            table.add_column(column, justify="right")
        cells = [[math.nan if value is None else value for value in row] for row in values]
        top = [max((row[k] for row in cells), key=_order) for k in range(len(learned.columns))]
        for member, row in zip(learned.members, cells, strict=True):
            styled = [Text(number(v), style="bold" if v == best else "") for v, best in zip(row, top, strict=True)]
            table.add_row(Text(member), *styled)
        tables.append(table)
    return Group(*tables)


def learned_picture(learned: Learned, path: Path, title: str = "") -> None:
    """Draw weights and reliabilities side by side as heat maps (.png, .pdf, .svg); a column's mean weight is white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = 1.6 + 0.32 * len(learned.members), 3.0 + 1.3 * len(learned.columns)
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)  # no window system, whatever the user's default backend is
    panels = figure.subplots(1, 2, sharey=True)
    means = [sum(column) / len(column) for column in zip(*learned.weights, strict=True)]
    departures = [[value - mean for value, mean in zip(row, means, strict=True)] for row in learned.weights]
    bound = max((abs(value) for row in departures for value in row), default=0.0) or 1.0
    reliability = [[math.nan if value is None else value for value in row] for row in learned.reliability]
    maps: tuple[tuple[str, Sequence[Sequence[float]], Sequence[Sequence[float]], dict[str, Any]], ...] = (
        ("weight of the member", learned.weights, departures, {"cmap": "PiYG", "vmin": -bound, "vmax": bound}),
        ("reliability: F1, CCC", reliability, reliability, {"cmap": "Greens"}),
    )
    for axes, (name, cells, colours, look) in zip(panels, maps, strict=True):
        image = axes.imshow(colours, aspect="auto", **look)
        axes.set_xticks(
            range(len(learned.columns)), labels=learned.columns, rotation=45, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(learned.members)), labels=learned.members)
        for m, row in enumerate(cells):
            for k, value in enumerate(row):
                red, green, blue, _ = image.cmap(image.norm(colours[m][k]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                axes.text(k, m, number(value), ha="center", va="center", fontsize=7, color="white" if dark else "black")
        axes.set_title(name, fontsize=10)
    if title:
        figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
