"""What a run came to, in Markdown: its scores, and how long each step took."""

from collections.abc import Sequence
from pathlib import Path

from ensemble.evaluation.markdown import (
    comparison_markdown,
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


def times(steps: Sequence[Step], places: Places) -> list[tuple[str, float, int]]:
    """Return (step, seconds of the attempt that finished it, attempts) of those that are finished."""
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
    step_times = times(steps, places)
    rows = [[name, format_seconds(seconds), str(attempts)] for name, seconds, attempts in step_times]
    total = format_seconds(sum(seconds for _, seconds, _ in step_times))
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
                    audit = read_json(path.read_text(encoding="utf-8"))
                    wrong = [line for line in protocol_lines(audit) if not line.startswith("Note")]
                    if wrong:
                        raise ProtocolError(f"{path}: {' '.join(wrong)}")


def _comparison(path: Path) -> list[str]:
    """Return the tables of `medusa compare`, one for each part: ways of fusing against sets of members."""
    return comparison_markdown(read_json(path.read_text(encoding="utf-8"))) if path.is_file() else []
