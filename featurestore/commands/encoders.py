"""`medusa encoders`: every encoder that has a name."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from featurestore.errors import ConfigError
from featurestore.terminal import console, say

if TYPE_CHECKING:
    from featurestore.encoders.catalog import EncoderEntry

COLUMNS = ("name", "family", "dim", "layers", "rows/s", "million parameters", "weights", "licence", "needs")
NUMBERS = COLUMNS[2:6]


def encoders(
    search: Annotated[str, Option(help="Only those with all of these words in a column: qwen, whisper, t5, ...")] = "",
    as_json: Annotated[bool, Option("--json", help="Print them as JSON.")] = False,
    markdown: Annotated[bool, Option("--markdown", help="Print them as a Markdown table.")] = False,
) -> None:
    """List the encoders that have a name: family, size, frame rate, where their weights come from, what was checked.

    `medusa featurize --encoder` takes each of these names, and also any hub name (org/name) or directory of a supported
    family. Licences are those of the model cards, where these were read.

    Example: `medusa encoders --search whisper`
    """
    from featurestore.encoders.catalog import ENCODERS

    if as_json and markdown:
        raise ConfigError("--json and --markdown: give one of the two.")
    words = search.lower().split()
    matching = {name: entry for name, entry in ENCODERS.items() if _matches(name, entry, words)}
    if as_json:
        fields = [
            {"name": name, **asdict(entry), "weights": entry.source, "licence": entry.licence, "checked": entry.checked}
            for name, entry in matching.items()
        ]
        print(json.dumps(fields, indent=1))
        return
    if not matching:
        raise ConfigError(f"--search {search!r}: none of {len(ENCODERS)} encoders has it in a column.")
    rows = [_row(name, entry) for name, entry in matching.items()]
    if markdown:
        print(_markdown(rows))
        return
    from rich.table import Table

    table = Table(title=f"{len(matching)} of {len(ENCODERS)} encoders", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
    say("layers: numbers 0 to this one; rows/s: 0 where rows are tokens, or one row stands for an utterance", "dim")
    for family, checked in {entry.family: entry.checked for entry in matching.values()}.items():
        say(f"checked of {family}: {checked}", "dim")


def _row(name: str, entry: "EncoderEntry") -> tuple[str, ...]:
    parameters = f"{entry.parameters_m:,.0f}" if entry.parameters_m >= 10 else f"{entry.parameters_m:.1f}"
    parameters = parameters if entry.parameters_m else "-"
    fields: tuple[Any, ...] = (
        name, entry.family, f"{entry.dim:,}", entry.layers, f"{entry.frame_rate_hz:g}", parameters, entry.source,
        entry.licence, entry.needs,
    )  # fmt: skip
    return tuple(str(field) for field in fields)


def _matches(name: str, entry: "EncoderEntry", words: list[str]) -> bool:
    text = " ".join(_row(name, entry)).lower()
    return all(word in text for word in words)


def _markdown(rows: list[tuple[str, ...]]) -> str:
    rule = ("--:" if column in NUMBERS else "---" for column in COLUMNS)
    return "\n".join("| " + " | ".join(row) + " |" for row in (COLUMNS, tuple(rule), *rows))
