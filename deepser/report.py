"""Scores as people read them: tables, a confusion matrix as text, and the same as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepser.metrics import Classification, Evaluation, ScoreRow, Spread

SHOWN = ("macro_f1", "accuracy", "uar", "mean_ccc")  # micro_f1 is the accuracy: one label, one prediction
SHOWN_BY_FOLD = ("macro_f1", "uar", "mean_ccc")
HEAD = "true \\ pred."
TITLES = {"macro_f1": "macro-F1", "accuracy": "accuracy", "uar": "UAR", "mean_ccc": "CCC"}


def scores_table(rows: Sequence[ScoreRow], title: str = "") -> Table:
    """One line per system: its scores over all utterances, then mean and deviation over folds where there are any.

    A system of several seeds shows mean and deviation over the seeds. The best figures of a column are bold.
    """
    shown = [score for score in SHOWN if any(score in row.scores for row in rows)]
    by_fold = [score for score in SHOWN_BY_FOLD if any(score in row.folds for row in rows)]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("system")
    for score in shown:
        table.add_column(TITLES[score], justify="right", no_wrap=True)
    for score in by_fold:
        table.add_column(f"{TITLES[score]}\nby fold", justify="right", no_wrap=True)
    best = {score: max(_rounded(row.scores[score]) for row in rows if score in row.scores) for score in shown}
    for row in rows:
        cells = []
        for score in shown:
            text = _spread(row.seeds[score]) if score in row.seeds else _number(row.scores.get(score, math.nan))
            top = score in row.scores and _rounded(row.scores[score]) == best[score]
            cells.append(Text(text, style="bold" if top else ""))
        cells += [Text(_spread(row.folds[score]) if score in row.folds else "") for score in by_fold]
        table.add_row(Text(row.name), *cells)
    return table


def class_table(result: Classification) -> Table:
    """Precision, recall, F1 and number of utterances of each class."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("class", no_wrap=True)
    for name in ("precision", "recall", "F1", "utterances"):
        table.add_column(name, justify="right")
    for name, own in result.per_class.items():
        table.add_row(Text(name), _number(own.precision), _number(own.recall), _number(own.f1), f"{own.support:,}")
    return table


def evaluation_report(name: str, evaluation: Evaluation) -> RenderableType:
    """Everything `medusa evaluate` shows: scores, attributes, classes, confusion, and what was left out."""
    result = evaluation.classification
    parts: list[RenderableType] = [scores_table([ScoreRow.of(name, evaluation)])]
    if evaluation.concordance:
        table = Table("attribute", "CCC", "utterances", box=box.SIMPLE_HEAD, show_edge=False)
        for attribute, value in evaluation.concordance.ccc.items():
            table.add_row(Text(attribute), _number(value), f"{evaluation.concordance.n[attribute]:,}")
        parts.append(table)
    parts += [class_table(result), Text(confusion_text(result)), Text(_counted(result))]
    return Group(*parts)


def confusion_text(result: Classification) -> str:
    """The confusion matrix as fixed-width text: counts, and the recall of each true class."""
    first = max(len(HEAD), *(len(name) for name in result.classes)) + 1
    width = max(7, *(len(f"{count:,}") + 1 for row in result.confusion for count in row))
    lines = [f"{HEAD:<{first}}" + "".join(f"{name[: width - 1]:>{width}}" for name in result.classes) + " recall %"]
    for name, row, own in zip(result.classes, result.confusion, result.per_class.values(), strict=True):
        recall = f"{100 * own.recall:>9.1f}" if own.support else f"{'-':>9}"
        lines.append(f"{name:<{first}}" + "".join(f"{count:>{width},}" for count in row) + recall)
    return "\n".join(lines)


def confusion_png(result: Classification, path: Path, title: str = "") -> None:
    """Draws the confusion matrix: colour and first figure are the share of the true class, the second the count."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = [[count / max(sum(row), 1) for count in row] for row in result.confusion]
    side = 2.0 + 0.75 * len(result.classes)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)  # no window system, whatever the user's default backend is
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(result.classes))
    axes.set_xticks(places, labels=result.classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, labels=result.classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for i, row in enumerate(result.confusion):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{100 * shares[i][j]:.0f} %\n{count}", ha="center", va="center", color=colour, fontsize=8)
    macro, uar = result.macro_f1, result.uar
    axes.set_title(f"{title}\n".lstrip() + f"macro-F1 {macro:.3f}, UAR {uar:.3f}, n = {result.n:,}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _counted(result: Classification) -> str:
    """What the scores are over, and what they leave out."""
    text = f"{result.n:,} utterances scored"
    if result.n_no_consensus:
        text += f"; {result.n_no_consensus:,} without a consensus label left out"
    if result.absent:
        text += f"; no utterance of {', '.join(result.absent)}: it counts as 0 in macro-F1 and not at all in UAR"
    return text + "."


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _rounded(value: float) -> float:
    """As shown, so that equal figures are equally bold; an undefined score is never the best."""
    return -math.inf if math.isnan(value) else round(value, 3)


def _spread(spread: Spread) -> str:
    return f"{_number(spread.mean)}±{spread.std:.3f}".replace("±0.", "±.")
