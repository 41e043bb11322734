"""Results in Markdown: tables of scores, any table of figures, and what a number was made on."""

import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepser.scores.metrics import ScoreRow, Spread
from deepser.scores.report import PRESENT, SHOWN, SHOWN_BY_FOLD, TITLES, number, over_folds, shown_scores, spread_text
from featurestore.errors import ConfigError
from featurestore.runtime.json_text import read_json

CLASS_SCORES = ("macro_f1", PRESENT, "uar", "accuracy")
COMPARED = ("macro_f1", "uar", "accuracy", "mean_ccc")
_MARKS = re.compile(r"([\\`*_\[\]<>~&#])")  # what Markdown may read as markup


def read_report(path: Path) -> dict[str, Any]:
    """Return the report.json that `fit-meta` wrote; ConfigError when it isn't one."""
    try:
        report: dict[str, Any] = read_json(path.read_text(encoding="utf-8"))
        score_rows(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no report of `medusa fit-meta` ({type(error).__name__}: {error}).") from None
    return report


def score_rows(report: Mapping[str, Any]) -> dict[str, list[ScoreRow]]:
    """Return the tables of a report, by the part that was scored."""

    def known(value: float | None) -> float:
        return math.nan if value is None else value

    def by_name(values: Mapping[str, float | None]) -> dict[str, float]:
        return {name: known(value) for name, value in values.items()}

    def spreads(values: Mapping[str, Any]) -> dict[str, Spread]:
        return {
            name: Spread(known(own["mean"]), known(own["std"]), by_name(own["values"])) for name, own in values.items()
        }

    def row_of(row: Mapping[str, Any]) -> ScoreRow:
        return ScoreRow(row["name"], by_name(row["scores"]), spreads(row["folds"]), spreads(row["seeds"]))

    return {part: [row_of(row) for row in rows] for part, rows in report["parts"].items()}


def protocol_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the problems of folds or splits in a saved report or protocol.json, one line each."""
    findings = (report.get("protocol") or report).get("findings", ())
    return [f"{each['severity'].capitalize()}: {each['message']}." for each in findings]


def scores_markdown(rows: Sequence[ScoreRow]) -> str:
    """One line per system, as `scores_table` shows them in a terminal."""
    shown, by_fold = shown_scores(rows, SHOWN), shown_scores(rows, SHOWN_BY_FOLD, by_fold=True)
    titles = {score: title.replace("\n", " ") for score, title in TITLES.items()}
    heads = [
        "system",
        *(titles[score] for score in shown),
        *(f"{titles[score]} {over_folds(rows, score)}" for score in by_fold),
    ]
    lines = []
    for row in rows:
        cells = [number(row.scores.get(score, math.nan)) for score in shown]
        lines.append([escape_markdown(row.name), *cells, *(_spread(row.folds.get(score)) for score in by_fold)])
    return table_markdown(heads, lines)


def comparison_markdown(saved: Mapping[str, Any]) -> list[str]:
    """Return for each part a title and a table in Markdown of what `Comparison.to_dict` gave."""
    texts = []
    for part, columns in saved["parts"].items():
        hidden = set(saved.get("attribute_rows", ()))
        every = [ScoreRow(row["name"], _defined(row["scores"])) for rows in columns.values() for row in rows.values()]
        scores = shown_scores([row for row in every if row.name not in hidden], COMPARED)
        ends = saved.get("intervals", {}).get(part, {})
        cells = [(score, column) for score in scores for column in columns]
        lines = []
        for name in dict.fromkeys(name for rows in columns.values() for name in rows):
            line = [escape_markdown(name)]
            for score, column in cells:
                defined = _defined(columns[column].get(name, {}).get("scores", {}))
                value = math.nan if name in hidden and score in CLASS_SCORES else defined.get(score, math.nan)
                _, low, high = ends.get(column, {}).get(name, {}).get(score) or (None, None, None)
                unknown = low is None or high is None or math.isnan(value)
                line.append(number(value) if unknown else f"{number(value)} ({_end(low)} to {_end(high)})")
            lines.append(line)
        heads = ["fusion", *(f"{title_of(score)}, {column}" for score, column in cells)]
        texts += [f"Ways of fusing, by sets of members, on {part}:", table_markdown(heads, lines)]
    if saved.get("n_resamples"):
        texts.append(f"In brackets: 95 % intervals from {saved['n_resamples']:,} resamples of the speakers.")
    return texts


def _end(value: float | None) -> str:
    return number(math.nan if value is None else value)


def _defined(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in scores.items()}


def title_of(score: str) -> str:
    """Return the name of a score, on one line."""
    return "mean CCC" if score == "mean_ccc" else TITLES[score].replace("\n", " ")


def table_markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], n_texts: int = 1) -> str:
    """Return a table whose first columns, by default one, are text and whose others are figures."""
    ruler = [*["---"] * n_texts, *["---:"] * (len(heads) - n_texts)]
    lines = [[_in_cell(head) for head in heads], ruler, *([_in_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """Return a text as Markdown shows it, on one line; a table escapes the bars in its cells itself."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _in_cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", "\\|")


def machine() -> str:
    """Return the kind of machine and the versions behind the numbers, without naming the machine."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("medusa-ser", "torch", "transformers"))
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {versions}"


def _spread(spread: Spread | None) -> str:
    return "" if spread is None else spread_text(spread, " ± ")
