"""What a run came to, in Markdown: its scores, and how long each step took."""

from collections.abc import Sequence

from ensemble.card import machine, read_report, score_rows, scores_markdown, table_markdown
from ensemble.plan import Places, Step
from ensemble.recipe import Recipe
from ensemble.run import record_of
from featurestore.table_files import replace_file
from featurestore.terminal import told_seconds

SUMMARY = "summary.md"


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
                parts += [f"Note: {note}" for note in report["notes"]]
    took = times(steps, places)
    rows = [[name, told_seconds(seconds), str(attempts)] for name, seconds, attempts in took]
    total = told_seconds(sum(seconds for _, seconds, _ in took))
    parts += [table_markdown(["step", "time", "attempts"], [*rows, ["in all", total, ""]])]
    parts += [f"Times are of the attempt that finished a step, on {machine()}."]
    path = places.directory / SUMMARY
    text = "\n\n".join(part for part in parts if part) + "\n"
    replace_file(path, lambda file: file.write(text.encode()))
    return str(path)
