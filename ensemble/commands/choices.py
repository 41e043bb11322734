"""Options of a few known values, refused before a command begins and so in a recipe's plan too."""

from collections.abc import Callable, Collection
from typing import Annotated

from typer import BadParameter

from ensemble.fusion.config import INPUTS, METAS
from featurestore.errors import ConfigError
from featurestore.runtime.wording import split_names
from featurestore.terminal import reads

ColumnOption = Annotated[
    list[str] | None,
    reads("What a file's columns hold: id=NAME, label=NAME, attr_arousal=NAME, scores=p_.", "--column"),
]


def columns_of(pairs: list[str] | None) -> dict[str, str]:
    """Return the columns that `--column` names in a file of predictions, by role; "scores=" are bare class names."""
    columns = {}
    for pair in pairs or []:
        role, separator, column = pair.partition("=")
        if not separator or not role:
            raise ConfigError(f"--column {pair!r}: expected what it holds and the column, such as label=prediction.")
        columns[role] = column
    return columns


def one_of(names: Collection[str]) -> Callable[[str | None], str | None]:
    """Return a callback of an option that takes these values; None is an option that was left out."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise BadParameter(f"{value!r} is not one of {', '.join(names)}.")
        return value

    return check


def known_rows(value: str) -> str:
    """Return the callback of `--rows`: ways of fusing, each with inputs after a colon if need be, or "all"."""
    for name in split_names(value) if value != "all" else ():
        kind, _, inputs = name.partition(":")
        one_of(METAS)(kind)
        one_of(INPUTS)(inputs or None)
    return value


def counts(text: str | None) -> list[int] | None:
    """Return the callback of `--top`: "14,7,5" as numbers."""
    if text is None:
        return None
    try:
        numbers = [int(part) for part in split_names(text)]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise BadParameter(f"{text!r}: numbers of members, comma-separated, are expected.")
    return numbers
