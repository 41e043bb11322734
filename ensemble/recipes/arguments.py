"""A recipe's values as arguments of a command: what the command knows is not repeated here.

Commands are typer's, and known by their parameters' names alone: its classes have moved between its releases.
"""

import inspect
from pathlib import Path
from typing import Any, get_args

from featurestore.errors import ConfigError
from featurestore.runtime.yaml_lines import Entry, shown, unknown_key


def find_command(commands: Any, words: tuple[str, ...], place: str) -> Any:
    """Return the command of these words; ConfigError with near ones at `place`."""
    command = commands
    for i, word in enumerate(words):
        if word not in command.commands:
            raise unknown_key(place, word, sorted(command.commands), f"command medusa {' '.join(words[:i])}".strip())
        command = command.commands[word]
    return command


def is_argument(parameter: Any) -> bool:
    """Return whether the parameter is given by its place, not by a name."""
    return not any(option.startswith("-") for option in parameter.opts)


def keys_of(parameter: Any) -> list[str]:
    """Return a recipe's name for a parameter of a command: its long option without dashes, or the argument's name."""
    if is_argument(parameter):
        return [parameter.name]
    return [option.removeprefix("--") for option in parameter.opts if option.startswith("--")]


def path_options(command: Any) -> set[str]:
    """Return the parameters of a command that are paths, by their names in its signature."""
    hints = {name: p.annotation for name, p in inspect.signature(command.callback).parameters.items()}
    return {name for name, hint in hints.items() if Path in _parts(hint)}


def _parts(hint: Any) -> list[Any]:
    """Return a type and all that it is made of: Annotated[Path | None, ...] -> ..., Path, None."""
    return [hint, *(part for inner in get_args(hint) if isinstance(inner, type) or get_args(inner)
                    for part in _parts(inner))]  # fmt: skip


def arguments_of(parameter: Any, key: str, entry: Entry) -> list[str]:
    """Return a recipe's value as arguments of the command."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(entry.value, bool):
            raise ConfigError(f"{entry.place}: {key} must be true or false, found {entry.value!r}.")
        off = [option for option in parameter.secondary_opts if option.startswith("--")]
        return [f"--{key}"] if entry.value else off[:1]
    if getattr(parameter, "multiple", False):
        texts = entry.value if isinstance(entry.value, list) else [entry.text]
        return [part for text in texts for part in _option(key, text)]
    if is_argument(parameter) and getattr(parameter, "nargs", 1) == -1:
        return list(entry.texts)
    text = ",".join(entry.value) if isinstance(entry.value, list) else entry.text
    return [text] if is_argument(parameter) else _option(key, text)


def _option(key: str, text: str) -> list[str]:
    return [f"--{key}={text}"] if text.startswith("-") else [f"--{key}", text]


def check_arguments(command: Any, words: tuple[str, ...], arguments: list[str], options: Entry) -> None:
    """Let the command itself read its arguments, and name the recipe's line of one that it refuses."""
    try:
        command.make_context(" ".join(words), list(arguments))
    except Exception as error:  # typer's class for it has moved between its releases
        if not hasattr(error, "format_message"):
            raise
        refused = getattr(error, "param", None)
        keys = [] if refused is None else [key for key in keys_of(refused) if key in options.value]
        place = options.value[keys[0]].place if keys else options.place
        actual = f", found {shown(options.value[keys[0]].value)}" if keys else ""
        raise ConfigError(f"{place}: {' '.join(error.format_message().split()).rstrip('.')}{actual}.") from None
