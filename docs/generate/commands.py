"""Every command with every option, read from the command line's own declarations."""

from collections.abc import Iterator
from typing import Any

import typer

import cli
from ensemble.recipes.arguments import is_argument, keys_of
from ensemble.recipes.recipe import NAMED_SECTIONS, SECTIONS
from featurestore.corpora import CORPORA
from featurestore.terminal import Commands
from generate.text import cell, table

# The command that each section of a recipe calls.
SECTION_COMMANDS = {
    "split": "split", "transcribe": "transcribe", "featurize": "featurize", "members": "fit-deepser",
    "meta": "fit-meta", "compare": "compare", "evaluate": "evaluate",
}  # fmt: skip


def walk(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield (words, command) for every command, in the order of `--help`."""
    group = group or typer.main.get_command(cli.app)
    names = [name for name in Commands.order if name in group.commands] if not words else list(group.commands)
    for name in names:
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from walk(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def commands_page() -> str:
    """Return the page of all commands: what each does, an example, its arguments and options by panel."""
    parts = [
        "# Every command and option",
        "Written from the program when this documentation was built. `medusa COMMAND --help` prints the same. "
        "[Exit codes](errors.md) are common to all commands.",
    ]
    for words, command in walk():
        parts += [f"## medusa {words}", _prose(command.help or "")]
        panels: dict[str, list[list[str]]] = {}
        for parameter in command.params:
            panel = "Arguments" if is_argument(parameter) else getattr(parameter, "rich_help_panel", None) or "Options"
            if not getattr(parameter, "hidden", False):
                panels.setdefault(panel, []).append(_row(parameter))
        for panel, rows in panels.items():
            parts.append(f"**{panel}**\n\n" + table(["", "default", "what it sets"], rows))
    return "\n\n".join(parts) + "\n"


def recipe_keys_page() -> str:
    """Return the page of every key that a recipe may have, section by section."""
    commands = dict(walk())
    parts = [
        "# Every key of a recipe",
        "The keys of a section are the options of its command without the dashes, and the command's arguments by their "
        "names; [the commands](command-line.md) say what each sets. At the top a recipe may also have `about` (one "
        "line), `variables` (names with values, null where `--set` must give one), `manifest` (a table that is there "
        "already, in place of `prepare`) and `cv` (the column of folds for members and all that follows). See "
        "[recipes](../recipes.md).",
    ]
    for section in SECTIONS:
        called = {f"prepare {name}" for name in (*CORPORA, "csv", "join")} if section == "prepare" else set()
        names = sorted(called) or [SECTION_COMMANDS[section]]
        named = " It is a mapping of names, each with these keys, and `defaults`." if section in NAMED_SECTIONS else ""
        parts.append(f"## {section}\n\nCalls `medusa {section if called else names[0]}`.{named}")
        rows = [[f"`{name}`", ", ".join(f"`{key}`" for p in commands[name].params for key in keys_of(p)[:1])]
                for name in names]  # fmt: skip
        parts.append(table(["command", "keys"], rows))
    return "\n\n".join(parts) + "\n"


def _row(parameter: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if is_argument(parameter):
        many = " ..." if parameter.nargs == -1 else ""
        names = f"`{(parameter.metavar or parameter.name).upper()}{many}`"
    return [names, _default(parameter), cell(getattr(parameter, "help", None) or "")]


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default() if callable(parameter.default) else parameter.default
    if getattr(parameter, "is_flag", False):
        return "on" if value is True else "off"
    return "" if value in (None, "", ()) or value == [] else f"`{cell(str(value))}`"


def _prose(text: str) -> str:
    """Return a command's docstring, its lists of lines kept."""
    return text.replace("\b", "").strip()
