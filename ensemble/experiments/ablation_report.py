"""Ablations and presets as tables: for the terminal, and as markdown to be kept."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepser.scores.report import TITLES, number, over_folds, shown_scores, spread_text
from ensemble.evaluation.bootstrap import Interval
from ensemble.evaluation.markdown import table_markdown
from ensemble.experiments.ablation import Ablations, Result, Trained
from featurestore.runtime.wording import format_seconds

SHOWN = ("macro_f1", "accuracy", "uar", "mean_ccc")
COMPARED = ("macro_f1", "uar")
# Too much for a terminal's width.
PAGE_ONLY = ("macro-F1\n95 %", "UAR\n95 %", "change of\nUAR, 95 %", "parameters")


def ablation_table(ablations: Ablations) -> Group:
    """Return a table for each part of the corpus, then what does not apply and why."""
    shown: list[RenderableType] = []
    for part in ablations.n_speakers:
        table = Table(title=_title(ablations, part), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        headers = _headers(ablations, part)
        shown_here = [
            n for n, header in enumerate(headers) if header not in PAGE_ONLY and not header.startswith("macro-F1\nof ")
        ]
        for n in shown_here:
            table.add_column(headers[n], justify="right" if n else "left", no_wrap=n == 0)
        for cells in _rows(ablations, part):
            table.add_row(*(Text(cells[n]) for n in shown_here))
        shown.append(table)
    shown += [Text(f"{each.name} ({each.about}): left out, {each.why_not}.") for each in ablations.left_out]
    return Group(*shown)


def ablation_markdown(ablations: Ablations, heading: str, command: str = "", protocol: Sequence[str] = ()) -> str:
    """Return the same as a page: the command that made it, what was trained, the tables and how to read them."""
    lines = [f"# {heading}", ""]
    if command:
        lines += ["```console", command, "```", ""]
    for part in ablations.n_speakers:
        headers = [header.replace("\n", " ") for header in _headers(ablations, part)]
        lines += [f"{_title(ablations, part)}.", ""]
        lines += [table_markdown(headers, _rows(ablations, part)), ""]
    lines += [*(f"- {line}." for line in protocol), *([""] if protocol else [])]
    lines += [f"- {each.variant.name}: {each.variant.about}{_members(each)}." for each in ablations.trained]
    lines += [f"- {each.name} ({each.about}): left out, {each.why_not}." for each in ablations.left_out]
    first_name = ablations.trained[0].variant.name
    lines += [
        "",
        f"Differences are from {first_name}, on the same utterances; intervals are 95 %, from "
        f"{ablations.n_resamples:,} resamples of speakers; p from swapping the two systems speaker by speaker.",
    ]
    if any(each.variant.table2 is not None for each in ablations.trained):
        lines += ["The last column is the relative change of macro-F1 that MEDUSA's Table 2 gives, on MSP-Podcast."]
    return "\n".join(lines) + "\n"


def _title(ablations: Ablations, part: str) -> str:
    n = len(ablations.folds)
    return f"{part}: {n} fold{'s' if n > 1 else ''} ({ablations.rule}), {ablations.n_speakers[part]:,} speakers"


def _scores(ablations: Ablations, part: str) -> list[str]:
    rows = [each.results[part].row for each in ablations.trained]
    return shown_scores(rows, SHOWN)


def _headers(ablations: Ablations, part: str) -> list[str]:
    headers = ["system"]
    for score in _scores(ablations, part):
        headers.append(TITLES[score])
        headers += [f"{TITLES[score]}\n95 %"] if score in COMPARED else []
    rows = [each.results[part].row for each in ablations.trained]
    headers += [
        f"{TITLES[score]}\n{over_folds(rows, score)}" for score in COMPARED if any(score in row.folds for row in rows)
    ]
    headers += [f"change of\n{TITLES[score]}, 95 %" for score in COMPARED]
    headers += ["p\nmacro-F1", "p, Holm\nmacro-F1", "change\nin %"]
    headers += ["paper\nin %"] if _has_table2(ablations) else []
    return [*headers, "parameters", "epochs took"]


def _rows(ablations: Ablations, part: str) -> list[list[str]]:
    results = [each.results[part] for each in ablations.trained]
    by_fold = [score for score in COMPARED if any(score in each.row.folds for each in results)]
    rows = []
    for each, result in zip(ablations.trained, results, strict=True):
        cells = [each.variant.name]
        for score in _scores(ablations, part):
            cells.append(number(result.row.scores.get(score, math.nan)))
            cells += [_interval(result.intervals.get(score))] if score in COMPARED else []
        cells += [_by_fold(result, score) for score in by_fold]
        cells += [_change(result, score) for score in COMPARED]
        cells += _relative(result)
        if _has_table2(ablations):
            cells.append("" if each.variant.table2 is None else f"{each.variant.table2:+.1f}")
        rows.append([*cells, told_count(each.n_parameters), format_seconds(each.train_s)])
    return rows


def told_count(n: int) -> str:
    """Return a count such as "60.1 M" or "350 k"."""
    return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.0f} k"


def _has_table2(ablations: Ablations) -> bool:
    return any(each.variant.table2 is not None for each in ablations.trained)


def _interval(interval: Interval | None) -> str:
    return "" if interval is None or math.isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}"


def _by_fold(result: Result, score: str) -> str:
    spread = result.row.folds.get(score)
    return "" if spread is None else spread_text(spread, " ± ")


def _change(result: Result, score: str) -> str:
    if result.against is None or score not in result.against.differences:
        return ""
    difference = result.against.differences[score]
    if math.isnan(difference.low):
        return "" if math.isnan(difference.value) else f"{difference.value:+.3f}"
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def _relative(result: Result) -> list[str]:
    """Return p of macro-F1, the same corrected for the number of systems, and its relative change in per cent."""
    if result.against is None or "macro_f1" not in result.against.differences:
        return ["", "", ""]
    difference = result.against.differences["macro_f1"]
    change = f"{100 * difference.value / difference.second:+.1f}" if difference.second else ""
    return [f"{difference.p:.3f}", f"{difference.p_holm:.3f}", change]


def _members(trained: Trained) -> str:
    """Return the members behind a row, where they are more than one or the features differ from row to row."""
    members_text = "; ".join(f"{', '.join(m.features)}, seed {m.train.seed}" for m in trained.variant.members)
    epochs = " + ".join(str(stage.epochs) for stage in trained.variant.members[0].train.stages)
    return f" ({members_text}; {epochs} epochs)"
