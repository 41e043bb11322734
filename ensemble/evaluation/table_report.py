"""A table of several systems as text: for the terminal, Markdown, LaTeX (booktabs), CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deepser.scores.report import TITLES, number
from ensemble.evaluation.bootstrap import Difference, Interval
from ensemble.evaluation.markdown import escape_markdown, table_markdown
from ensemble.evaluation.table import CCC, SystemTable
from featurestore.errors import ConfigError

MARKDOWN, LATEX, CSV, JSON = "markdown", "latex", "csv", "json"
FORMATS = (MARKDOWN, LATEX, CSV, JSON)
SUFFIXES = {".md": MARKDOWN, ".markdown": MARKDOWN, ".tex": LATEX, ".csv": CSV, ".json": JSON}
MINUS = "\N{MINUS SIGN}"
# What LaTeX reads as a command, or prints as another sign in its default encoding.
LATEX_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": r"\textless{}",
    ">": r"\textgreater{}", '"': r"\textquotedbl{}", MINUS: "$-$",
}  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """A figure, the interval around it, and the p-values of a difference; best: the largest of its column."""

    value: str
    interval: str = ""
    p: str = ""
    holm: str = ""
    best: bool = False


@dataclass(frozen=True)
class _Line:
    """A row: a system's scores on a part of the corpus, or (is_difference) these less the reference's."""

    part: str
    name: str
    cells: tuple[_Cell, ...]
    is_difference: bool = False


def format_of(output: Path | None, name: str | None) -> str | None:
    """Return the format that is named, else that of the file's suffix; None where neither is given.

    ConfigError for a suffix that means none.
    """
    if name is not None or output is None:
        return name
    format_name = SUFFIXES.get(output.suffix.lower())
    if format_name is None:
        raise ConfigError(
            f"{output}: expected a name that ends in {', '.join(SUFFIXES)}, or --format {', '.join(FORMATS)}."
        )
    return format_name


def text_of(tables: Mapping[str, SystemTable], kind: str, protocol: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """Return the tables of all parts as one text of a format.

    protocol: the check of the folds or splits for JSON; warnings: the same as lines, which stand among the notes.
    """
    if kind == JSON:
        reports = {part: table.to_dict() | {"protocol": protocol} for part, table in tables.items()}
        return json.dumps(reports, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if kind == CSV:
        return _csv(tables)
    return {MARKDOWN: _markdown, LATEX: _latex}[kind](tables, warnings)


def terminal_tables(tables: Mapping[str, SystemTable]) -> Group:
    """Return a table for each part and its notes."""
    shown: list[RenderableType] = []
    for part, system_table in tables.items():
        table = Table(title=_title(system_table), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
        table.add_column("system", no_wrap=True)
        for score in system_table.scores:
            table.add_column(score_name(score), justify="right")
        for line in _lines({part: system_table}, system_table.scores):
            cells = [
                Text(
                    "\n".join(filter(None, (cell.value, cell.interval, cell.p, cell.holm))),
                    style="bold" if cell.best else "",
                )
                for cell in line.cells
            ]
            table.add_row(Text(f"  {line.name}" if line.is_difference else line.name), *cells)
        shown.append(table)
        shown += [Text(f"note: {note}", style="dim") for note in system_table.notes]
    return Group(*shown)


def score_name(score: str) -> str:
    """Return the name of a score in a table."""
    if score == "mean_ccc":
        return "mean CCC"
    return f"CCC {score.removeprefix(CCC)}" if score.startswith(CCC) else TITLES[score].replace("\n", " ")


def escape_latex(text: str) -> str:
    """Return a text as LaTeX prints it, on one line."""
    return "".join(LATEX_SIGNS.get(sign, sign) for sign in " ".join(text.split()))


def _title(table: SystemTable) -> str:
    return f"{table.part}: {table.n_utterances:,} utterances, {table.n_clusters:,} speakers"


def _lines(tables: Mapping[str, SystemTable], scores: Sequence[str]) -> list[_Line]:
    lines = []
    for part, table in tables.items():
        best = {score: max((_order(row.score(score).value) for row in table.rows), default=0) for score in scores}
        scored = {score: [row for row in table.rows if not math.isnan(row.score(score).value)] for score in scores}
        several = {score: len(rows) > 1 for score, rows in scored.items()}
        n_compared = sum(bool(row.differences) for row in table.rows)
        for row in table.rows:
            cells = []
            for score in scores:
                interval = row.score(score)
                is_best = several[score] and _order(interval.value) == best[score]
                cells.append(_Cell(number(interval.value), _ends(interval), best=is_best))
            lines.append(_Line(part, row.name, tuple(cells)))
            if row.differences:
                difference_cells = tuple(_difference(row.differences.get(score), n_compared > 1) for score in scores)
                lines.append(_Line(part, f"minus {table.reference}", difference_cells, is_difference=True))
    return lines


def _order(value: float) -> float:
    """Return a figure as shown, so that equal figures are equally good; an undefined one is never the best."""
    return -math.inf if math.isnan(value) else round(value, 3)


def _ends(interval: Interval, signed: bool = False) -> str:
    if math.isnan(interval.low):
        return ""
    low, high = (_signed(end) if signed else number(end) for end in (interval.low, interval.high))
    return f"{low} to {high}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}"


def _difference(difference: Difference | None, several: bool) -> _Cell:
    if difference is None:
        return _Cell("")
    cell = _Cell(
        _signed(difference.value), _ends(Interval(difference.value, difference.low, difference.high), signed=True)
    )
    holm = "" if not several or math.isnan(difference.p_holm) else f"Holm {p_value(difference.p_holm)}"
    return cell if math.isnan(difference.p) else replace(cell, p=f"p {p_value(difference.p)}", holm=holm)


def p_value(p: float) -> str:
    """Return a p-value as it is printed: three digits, or that it is smaller."""
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _scores(tables: Mapping[str, SystemTable]) -> list[str]:
    """Return the columns that some part has, in the order of the part that has the most."""
    longest = max((found.scores for found in tables.values()), key=len)
    return list(dict.fromkeys([*longest, *(score for found in tables.values() for score in found.scores)]))


def _rows(
    tables: Mapping[str, SystemTable], escape: Callable[[str], str], cell: Callable[[_Cell], str]
) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of text; the part is a column where there are several."""
    scores, several = _scores(tables), len(tables) > 1
    heads = [*(["part"] if several else []), "system", *(escape(score_name(score)) for score in scores)]
    rows = [
        [*([escape(line.part)] if several else []), escape(line.name), *(cell(own) for own in line.cells)]
        for line in _lines(tables, scores)
    ]
    return heads, rows


def _notes(tables: Mapping[str, SystemTable], warnings: Sequence[str]) -> list[str]:
    several = len(tables) > 1
    by_part = [
        text for part, found in tables.items() for note in (_title(found), *found.notes)
        for text in [f"{part}: {note}" if several and note != _title(found) else note]
    ]  # fmt: skip
    return [*by_part, *warnings]


def _markdown(tables: Mapping[str, SystemTable], warnings: Sequence[str]) -> str:
    def cell(content: _Cell) -> str:
        value = content.value.replace("-", MINUS) if len(content.value) > 1 else content.value
        interval = f" ({content.interval.replace('-', MINUS)})" if content.interval else ""
        p_values = "".join(f", {each.replace('<', '&lt; ')}" for each in (content.p, content.holm) if each)
        return (f"**{value}**" if content.best else value) + interval + p_values

    heads, rows = _rows(tables, escape_markdown, cell)
    notes = "\n".join(f"- {escape_markdown(note)}" for note in _notes(tables, warnings))
    return f"{table_markdown(heads, rows, n_texts=1 + (len(tables) > 1))}\n\n{notes}\n"


def _latex(tables: Mapping[str, SystemTable], warnings: Sequence[str]) -> str:
    def cell(content: _Cell) -> str:
        value = escape_latex(content.value.replace("-", MINUS)) if len(content.value) > 1 else content.value
        text = rf"\textbf{{{value}}}" if content.best else value
        if content.interval:
            text += rf" {{\footnotesize ({escape_latex(content.interval.replace('-', MINUS))})}}"
        return text + "".join(_latex_p(each) for each in (content.p, content.holm) if each)

    heads, rows = _rows(tables, escape_latex, cell)
    n_texts = 1 + (len(tables) > 1)
    lines = [
        "% needs \\usepackage{booktabs}",
        *(f"% {' '.join(note.split())}" for note in _notes(tables, warnings)),
        rf"\begin{{tabular}}{{{'l' * n_texts}{'r' * (len(heads) - n_texts)}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_p(text: str) -> str:
    """Return "p 0.012" or "Holm <.001" with its sign, as LaTeX sets it."""
    name, _, value = text.partition(" ")
    symbol = "p" if name == "p" else r"p_{\mathrm{Holm}}"
    return rf", {{\footnotesize ${symbol} {'<' if value.startswith('<') else '='} {value.lstrip('<')}$}}"


def _csv(tables: Mapping[str, SystemTable]) -> str:
    """One row for each system and part, every figure with all its digits, an undefined one empty."""
    scores = _scores(tables)
    columns = [
        column for score in scores for column in (
            score, f"{score}_low", f"{score}_high", f"{score}_difference", f"{score}_difference_low",
            f"{score}_difference_high", f"{score}_p", f"{score}_p_holm",
        )
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["part", "system", "reference", "utterances", "speakers", *columns])
    for part, table in tables.items():
        for row in table.rows:
            figures: list[float] = []
            for score in scores:
                interval, difference = row.score(score), row.differences.get(score)
                figures += [interval.value, interval.low, interval.high]
                figures += (
                    [math.nan] * 5
                    if difference is None
                    else [difference.value, difference.low, difference.high, difference.p, difference.p_holm]
                )
            texts = ["" if math.isnan(figure) else repr(float(figure)) for figure in figures]
            writer.writerow([part, row.name, table.reference, table.n_utterances, table.n_clusters, *texts])
    return text.getvalue()
