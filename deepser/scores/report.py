"""Scores as people read them: tables, a confusion matrix as text, and the same as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepser.scores.calibration import Calibration
from deepser.scores.metrics import Classification, Evaluation, ScoreRow, Spread

SHOWN = ("macro_f1", "accuracy", "uar", "mean_ccc")  # micro_f1 is the accuracy: one label, one prediction
SHOWN_BY_FOLD = ("macro_f1", "uar", "mean_ccc")
PRESENT = "macro_f1_present"  # beside macro-F1, where some class does not occur
FOLDS_NAMED = 6
HEAD = "true \\ pred."
TITLES = {
    "macro_f1": "macro-F1",
    "macro_f1_present": "macro-F1\nof present",
    "accuracy": "accuracy",
    "uar": "UAR",
    "mean_ccc": "CCC",
}


def scores_table(rows: Sequence[ScoreRow], title: str = "") -> Table:
    """One line per system: its scores over all utterances, then mean and deviation over folds where there are any.

    A system of several seeds shows mean and deviation over the seeds. The best figures of a column are bold.
    """
    shown, by_fold = shown_scores(rows, SHOWN), shown_scores(rows, SHOWN_BY_FOLD, by_fold=True)
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("system")
    for score in shown:
        table.add_column(TITLES[score], justify="right", no_wrap=True)
    for score in by_fold:
        table.add_column(f"{TITLES[score]}\n{over_folds(rows, score)}", justify="right", no_wrap=True)
    best = {score: max(_rounded(row.scores[score]) for row in rows if score in row.scores) for score in shown}
    for row in rows:
        cells = []
        for score in shown:
            text = spread_text(row.seeds[score]) if score in row.seeds else number(row.scores.get(score, math.nan))
            top = score in row.scores and _rounded(row.scores[score]) == best[score]
            cells.append(Text(text, style="bold" if top else ""))
        cells += [Text(spread_text(row.folds[score]) if score in row.folds else "") for score in by_fold]
        table.add_row(Text(row.name), *cells)
    return table


def shown_scores(rows: Sequence[ScoreRow], scores: Sequence[str], by_fold: bool = False) -> list[str]:
    """Return which of `scores` some row has; macro-F1 of the classes that occur stands beside it where they differ."""
    shown = [score for score in scores if any(score in (row.folds if by_fold else row.scores) for row in rows)]
    differs = any(PRESENT in row.scores and not _same(row.scores["macro_f1"], row.scores[PRESENT]) for row in rows)
    if by_fold:
        pairs = [(row.folds["macro_f1"], row.folds[PRESENT]) for row in rows if PRESENT in row.folds]
        differs = any(not _same(a, b.values[fold]) for own, b in pairs for fold, a in own.values.items())
    if differs and "macro_f1" in shown:
        shown.insert(shown.index("macro_f1") + 1, PRESENT)
    return shown


def over_folds(rows: Sequence[ScoreRow], score: str) -> str:
    """Return the head of a column of means over folds: over how many."""
    numbers = sorted({len(row.folds[score].values) for row in rows if score in row.folds})
    return f"of {' or '.join(map(str, numbers))} folds"


def _same(a: float, b: float) -> bool:
    return abs(a - b) < 1e-9 or (math.isnan(a) and math.isnan(b))


def class_table(result: Classification, f1_intervals: Mapping[str, str] | None = None) -> Table:
    """Return the precision, recall, F1 (with its interval where it is given) and number of utterances of each class."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("class", no_wrap=True)
    for name in ("precision", "recall", "F1", *(["95 % of F1"] if f1_intervals else []), "utterances"):
        table.add_column(name, justify="right")
    for name, scores in result.per_class.items():
        interval = [f1_intervals.get(name, "")] if f1_intervals else []
        figures = (number(scores.precision), number(scores.recall), number(scores.f1))
        table.add_row(Text(name), *figures, *interval, f"{scores.support:,}")
    return table


def evaluation_report(name: str, evaluation: Evaluation, f1_intervals: Mapping[str, str] | None = None) -> Group:
    """Return scores, attributes, classes, confusion and notes; f1_intervals: further cells by class name."""
    result = evaluation.classification
    parts: list[RenderableType] = [scores_table([ScoreRow.of(name, evaluation)])]
    if evaluation.concordance:
        table = Table("attribute", "CCC", "utterances", box=box.SIMPLE_HEAD, show_edge=False)
        for attribute, value in evaluation.concordance.ccc.items():
            table.add_row(Text(attribute), number(value), f"{evaluation.concordance.n[attribute]:,}")
        parts.append(table)
        undefined = [name for name, value in evaluation.concordance.ccc.items() if math.isnan(value)]
        if undefined:
            parts.append(Text(f"CCC of {', '.join(undefined)} is undefined (-): fewer than two utterances are rated."))
    if evaluation.absent_by_fold:
        parts.append(Text(_absent_text(evaluation.absent_by_fold)))
    if result:
        parts += [class_table(result, f1_intervals), Text(confusion_text(result)), Text(_counted(result))]
    return Group(*parts)


def confusion_text(result: Classification) -> str:
    """Return the confusion matrix as fixed-width text: counts, and the recall of each true class."""
    return matrix_text(result.classes, result.confusion)


def matrix_text(names: Sequence[str], counts: Sequence[Sequence[int]], head: str = HEAD) -> str:
    """Return counts, row the true and column the predicted name, as fixed-width text with the recall of each row."""
    first = max(len(head), *(len(name) for name in names)) + 1
    width = max(7, *(len(f"{count:,}") + 1 for row in counts for count in row))
    lines = [f"{head:<{first}}" + "".join(f"{name[: width - 1]:>{width}}" for name in names) + " recall %"]
    for i, (name, row) in enumerate(zip(names, counts, strict=True)):
        recall = f"{100 * row[i] / sum(row):>9.1f}" if sum(row) else f"{'-':>9}"
        lines.append(f"{name:<{first}}" + "".join(f"{count:>{width},}" for count in row) + recall)
    return "\n".join(lines)


def confusion_png(result: Classification, path: Path, title: str = "") -> None:
    """Draw the confusion matrix: colour and first figure are the share of the true class, the second the count."""
    scores = f"macro-F1 {result.macro_f1:.3f}, UAR {result.uar:.3f}, n = {result.n:,}"
    matrix_png(result.classes, result.confusion, path, f"{title}\n".lstrip() + scores)


def matrix_png(names: Sequence[str], counts: Sequence[Sequence[int]], path: Path, title: str = "") -> None:
    """Draw counts, row the true and column the predicted name, as `confusion_png` does."""
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    side = 2.0 + 0.75 * len(names)
    figure, (axes,) = new_figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(names))
    axes.set_xticks(places, labels=names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, labels=names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{100 * shares[i][j]:.0f} %\n{count}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)


def reliability_png(curves: Mapping[str, Calibration], path: Path, title: str = "") -> None:
    """Draw reliability curves by name: accuracy over confidence, marks as large as their share of the utterances."""
    figure, (axes,) = new_figure(5.0, 5.0)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--", label="calibrated")
    for name, calibration in curves.items():
        x, y = [each.confidence for each in calibration.bins], [each.accuracy for each in calibration.bins]
        (line,) = axes.plot(x, y, linewidth=1.5, label=f"{name}: ECE {calibration.ece:.3f}, NLL {calibration.nll:.3f}")
        sizes = [10 + 300 * each.n / calibration.n for each in calibration.bins]
        axes.scatter(x, y, s=sizes, color=line.get_color(), alpha=0.5, linewidths=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (largest probability)", ylabel="accuracy")
    axes.legend(loc="upper left", fontsize=8)
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)


def new_figure(width: float, height: float, n_panels: int = 1, stacked: bool = False) -> tuple[Any, list[Any]]:
    """Return a figure, sides in inches, and the axes of its panels, side by side or stacked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)  # no window system, whatever the user's default backend is
    n_rows, n_columns = (n_panels, 1) if stacked else (1, n_panels)
    return figure, list(figure.subplots(n_rows, n_columns, squeeze=False).flat)


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _counted(result: Classification) -> str:
    """Return a line with the numbers of utterances that are scored and left out."""
    text = f"{result.n:,} utterances scored"
    if result.n_no_consensus:
        text += f"; {result.n_no_consensus:,} without a consensus label left out"
    if result.absent:
        text += f"; no utterance of {', '.join(result.absent)}: it counts as 0 in macro-F1 and not at all in UAR; "
        text += "its recall and F1 are undefined (-)"
    return text + "."


def _absent_text(absent: Mapping[str, Sequence[str]]) -> str:
    """Return a note on the classes that folds lack, with the first few folds by name."""
    absences = [f"{fold} no {', '.join(names)}" for fold, names in absent.items()]
    more = f"; and {len(absences) - FOLDS_NAMED:,} more folds" if len(absences) > FOLDS_NAMED else ""
    return (
        f"Folds without a class, which counts as 0 in their macro-F1 and not in that of present classes: "
        f"{'; '.join(absences[:FOLDS_NAMED])}{more}."
    )


def number(value: float) -> str:
    """Three digits; a dash where it is undefined."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def _rounded(value: float) -> float:
    """Return a score as it is shown, so that equal figures are equally bold; an undefined one is never the best."""
    return -math.inf if math.isnan(value) else round(value, 3)


def spread_text(spread: Spread, sign: str = "±") -> str:
    """Return a mean and its deviation, which a single value has not; how many are defined where some are not."""
    n, defined = len(spread.values), sum(not math.isnan(value) for value in spread.values.values())
    if not defined:
        return "-"
    of = f" ({defined} of {n})" if defined < n else ""
    deviation = "" if math.isnan(spread.std) else f"{sign}{spread.std:.3f}".replace("±0.", "±.")
    return number(spread.mean) + deviation + of
