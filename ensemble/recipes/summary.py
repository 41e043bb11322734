"""What a run came to, in Markdown: its scores, and how long each step took."""

import math
from collections.abc import Sequence
from pathlib import Path

from deepser.scores.report import TITLES, number
from ensemble.evaluation.markdown import (
    machine,
    protocol_lines,
    read_report,
    score_rows,
    scores_markdown,
    table_markdown,
)
from ensemble.recipes.execute import record_of
from ensemble.recipes.plan import COMPARISON, Places, Step
from ensemble.recipes.recipe import Recipe
from featurestore.errors import ConfigError, ProtocolError
from featurestore.runtime.durable import replace_text, writing
from featurestore.runtime.json_text import read_json
from featurestore.runtime.wording import format_seconds

SUMMARY = "summary.md"
COMPARED = ("macro_f1", "uar", "accuracy", "mean_ccc")


def times(steps: Sequence[Step], places: Places) -> list[tuple[str, float, int]]:
    """(step, seconds of the attempt that finished it, attempts) of those that are finished."""
    records = [(step.name, record_of(step, places)) for step in steps]
    return [(name, record["seconds"], record["attempts"]) for name, record in records if "seconds" in record]


def write_summary(recipe: Recipe, steps: Sequence[Step], places: Places) -> str:
    """Write summary.md into the run's directory; returns its path."""
    parts = [f"# {recipe.name}", recipe.about]
    for step in steps:
        for thing in step.makes:
            if thing.path.name == "report.json" and thing.path.is_file():
                report = read_report(thing.path)
                for part, scores in score_rows(report).items():
                    parts += [f"On {part}:", scores_markdown(scores)]
                parts += protocol_lines(report) + [f"Note: {note}" for note in report["notes"]]
    parts += _comparison(places.directory / COMPARISON) if any(step.name == "compare" for step in steps) else []
    took = times(steps, places)
    rows = [[name, format_seconds(seconds), str(attempts)] for name, seconds, attempts in took]
    total = format_seconds(sum(seconds for _, seconds, _ in took))
    parts += [table_markdown(["step", "time", "attempts"], [*rows, ["in all", total, ""]])]
    parts += [f"Times are of the attempt that finished a step, on {machine()}."]
    path = places.directory / SUMMARY
    text = "\n\n".join(part for part in parts if part) + "\n"
    with writing(path, ConfigError):
        replace_text(path, text)
    return str(path)


def refuse_unclean(steps: Sequence[Step]) -> None:
    """Raise ProtocolError if a step that was finished earlier found its folds or splits to be unclean."""
    for step in steps:
        for thing in step.makes:
            for path in (thing.path, thing.path.with_name("protocol.json")):
                if path.name in ("report.json", "protocol.json") and path.is_file():
                    found = read_json(path.read_text(encoding="utf-8"))
                    wrong = [line for line in protocol_lines(found) if not line.startswith("Note")]
                    if wrong:
                        raise ProtocolError(f"{path}: {' '.join(wrong)}")


def _comparison(path: Path) -> list[str]:
    """What `medusa compare` wrote: a table for each part, ways of fusing against sets of members."""
    if not path.is_file():
        return []
    parts = []
    for part, columns in read_json(path.read_text(encoding="utf-8"))["parts"].items():
        scores = {column: {name: row["scores"] for name, row in found.items()} for column, found in columns.items()}
        all_rows = [row for found in scores.values() for row in found.values()]
        cells = [(score, column) for score in COMPARED if any(score in row for row in all_rows) for column in scores]
        lines = []
        for name in dict.fromkeys(name for found in scores.values() for name in found):
            values = [scores[column].get(name, {}).get(score) for score, column in cells]
            lines.append([name, *(number(math.nan if value is None else value) for value in values)])
        heads = ["fusion", *(f"{TITLES[score]}, {column}" for score, column in cells)]
        parts += [f"Ways of fusing, by sets of members, on {part}:", table_markdown(heads, lines)]
    return parts
