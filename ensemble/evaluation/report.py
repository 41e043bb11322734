"""What was found out about a system, as tables for the terminal and as pictures."""

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepser.scores.bins import BinnedAttribute
from deepser.scores.report import (
    PRESENT,
    TITLES,
    confusion_png,
    evaluation_report,
    matrix_png,
    matrix_text,
    number,
    reliability_png,
)
from ensemble.evaluation.assess import Assessment, Calibrated
from ensemble.evaluation.bootstrap import Comparison, Interval
from ensemble.evaluation.groups import GroupTable

SHOWN = ("macro_f1", "accuracy", "uar", "mean_ccc")  # and ccc_<attribute>
NAMES = TITLES | {"cross_entropy": "cross-entropy", "jensen_shannon": "Jensen-Shannon"}
N_SPEAKERS = 5  # shown from either end


def assessment_report(title: str, assessment: Assessment) -> Group:
    """Everything of one part, from the scores to the notes."""
    return Group(*_parts(title, assessment))


def write_pictures(title: str, assessment: Assessment, confusion: Path | None, reliability: Path | None) -> list[Path]:
    """Draw the pictures and return their files: classes at `confusion`, attributes beside it by name."""
    written = []
    if confusion is not None:
        if assessment.evaluation.classification is not None:
            confusion_png(assessment.evaluation.classification, confusion, title)
            written.append(confusion)
        for name, bins in assessment.bins.items():
            written.append(confusion.with_stem(f"{confusion.stem}-{name}"))
            matrix_png(bins.names, bins.confusion, written[-1], f"{title}\n{name}, n = {bins.n:,}")
    if reliability is not None and assessment.calibration is not None:
        curves = {"as given": assessment.calibration.unscaled, "temperature-scaled": assessment.calibration.scaled}
        reliability_png(curves, reliability, title)
        written.append(reliability)
    return written


def _parts(title: str, assessment: Assessment) -> Iterator[RenderableType]:
    f1 = {name.removeprefix("f1_"): _ends(i) for name, i in assessment.intervals.items() if name.startswith("f1_")}
    yield evaluation_report(title, assessment.evaluation, f1 or None)
    for name, bins in assessment.bins.items():
        yield Text(f"\n{matrix_text(bins.names, bins.confusion, name)}\n{_bias(bins)}")
    if assessment.intervals:
        yield Text(f"\nby resampling {assessment.n_clusters:,} speakers")
        yield _interval_table(assessment.intervals)
    if assessment.soft is not None:
        yield Text(
            f"\nvotes of {assessment.soft.n:,} utterances: cross-entropy {assessment.soft.cross_entropy:.3f} nats (at "
            f"least {assessment.soft.vote_entropy:.3f}, the raters' own), "
            f"Jensen-Shannon {assessment.soft.jensen_shannon:.3f} bits"
        )
    if assessment.calibration is not None:
        yield Text("")
        yield from _calibration(assessment.calibration)
    if assessment.groups is not None:
        yield Text("")
        yield from _groups(assessment.groups)
    if assessment.against is not None:
        comparison = assessment.against
        yield Text(
            f"\nA {comparison.first}, B {comparison.second}: {comparison.n_resamples:,} resamples of "
            f"{comparison.n_clusters:,} speakers; p from swapping A and B"
        )
        yield _comparison(comparison)
    for note in assessment.notes:
        yield Text(f"note: {note}", style="dim")


def _interval_table(intervals: dict[str, Interval]) -> Table:
    table = Table("score", "value", "95 % interval", box=box.SIMPLE_HEAD, show_edge=False)
    for name, interval in intervals.items():
        if name in SHOWN or name.startswith("ccc_") or (name in NAMES and name not in TITLES):
            table.add_row(_named(name), number(interval.value), _ends(interval))
    return table


def _calibration(calibrated: Calibrated) -> Iterator[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("probabilities", "ECE", "MCE", "NLL", "Brier", "confidence", "accuracy"):
        table.add_column(column, justify="left" if column == "probabilities" else "right")
    for name, calibration in (("as given", calibrated.unscaled), ("temperature-scaled", calibrated.scaled)):
        figures = (
            calibration.ece,
            calibration.mce,
            calibration.nll,
            calibration.brier,
            calibration.confidence,
            calibration.accuracy,
        )
        table.add_row(name, *(number(figure) for figure in figures))
    yield table
    fitted = ", ".join(f"{t:.3f}" for t in calibrated.temperatures.values())
    yield Text(f"temperature {fitted}, fitted on {calibrated.fitted_on}")


def _groups(groups: GroupTable) -> Iterator[RenderableType]:
    scores = list(groups.rows[0].scores)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    one_each = all(row.n_clusters == 1 for row in groups.rows)
    table.add_column(groups.column)
    for column in ("utterances", *([] if one_each else ["speakers"]), *(NAMES[score] for score in scores)):
        table.add_column(column, justify="right")
    rows = list(groups.rows)
    left_out = len(rows) - 2 * N_SPEAKERS
    for n, row in enumerate(rows):
        if one_each and left_out > 0 and N_SPEAKERS <= n < N_SPEAKERS + left_out:
            if n == N_SPEAKERS:
                table.add_row(f"... {left_out:,} more")
            continue
        cells = [f"{number(row.scores[score].value)} {_ends(row.scores[score])}".rstrip() for score in scores]
        table.add_row(Text(row.name), f"{row.n:,}", *([] if one_each else [f"{row.n_clusters:,}"]), *cells)
    yield table
    for score, gap in groups.gaps.items():
        yield Text(
            f"gap in {NAMES[score]}: {number(gap.interval.value)} {_ends(gap.interval)}, {gap.upper} less {gap.lower}"
        )
    if groups.left_out:
        yield Text(
            f"not every {groups.column} has {', '.join(groups.left_out)}: these utterances are left out of class scores"
        )
    if groups.left_out_attributes:
        names = ", ".join(groups.left_out_attributes)
        yield Text(f"not every {groups.column} with ratings has {names}: left out of the groups' CCC")
    if groups.n_without:
        yield Text(f"{groups.n_without:,} utterances have no {groups.column}", style="dim")
    if groups.n_small:
        yield Text(f"{groups.n_small:,} speakers have too few utterances to count in the gap", style="dim")


def _comparison(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("score", "A", "B", "A - B", "95 % interval", "p"):
        table.add_column(column, justify="left" if column == "score" else "right")
    for name, difference in comparison.differences.items():
        if name == "micro_f1":
            continue  # the accuracy, again
        if name == PRESENT and difference.first == comparison.differences["macro_f1"].first:
            continue  # every class occurs
        p = f"{difference.p:.3f}" if difference.p >= 0.001 else "<.001"
        interval = _ends(Interval(difference.value, difference.low, difference.high))
        table.add_row(
            _named(name), number(difference.first), number(difference.second), f"{difference.value:+.3f}", interval, p
        )
    return table


def _named(name: str) -> str:
    if name.startswith("f1_"):
        return f"F1 {name.removeprefix('f1_')}"
    return f"CCC {name.removeprefix('ccc_')}" if name.startswith("ccc_") else NAMES[name].replace("\n", " ")


def _ends(interval: Interval) -> str:
    return "" if interval.low != interval.low else f"{interval.low:.3f} to {interval.high:.3f}"


def _bias(bins: BinnedAttribute) -> str:
    """Where on the scale predictions are off, and to which side."""
    offsets = [f"{name} {off:+.2f}" for name, off in zip(bins.names, bins.bias, strict=True) if off == off]
    return f"mean of predicted less true: {', '.join(offsets)}"
