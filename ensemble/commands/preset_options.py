"""The options of `fit-deepser` that change its preset, made from the table that recipes read too."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from typer import Option

from ensemble.recipes.settings import SETTINGS, Setting
from featurestore.terminal import declare

PLACE = "options"  # the parameter of a command in whose place they stand


def preset_options(command: Callable[..., None]) -> Callable[..., None]:
    """Put an option for every setting in place of a command's parameter `options`, which receives those that are given.

    The command is called with {option: value}, without the settings that the command line leaves to the preset.
    """
    names = {_name(setting): setting.option for setting in SETTINGS}

    @functools.wraps(command)
    def call(**arguments: Any) -> None:
        values = {option: arguments.pop(name, None) for name, option in names.items()}
        command(**arguments, **{PLACE: {option: value for option, value in values.items() if value is not None}})

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parameters += [_parameter(setting) for setting in SETTINGS] if parameter.name == PLACE else [parameter]
    return declare(call, parameters)


def _name(setting: Setting) -> str:
    return setting.option.replace("-", "_")


def _parameter(setting: Setting) -> inspect.Parameter:
    option = Option(
        f"--{setting.option}", help=setting.help, rich_help_panel=setting.panel, min=setting.least,
        show_default=setting.default,
    )  # fmt: skip
    hint: Any = setting.kind | None
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(_name(setting), kind, default=None, annotation=Annotated[hint, option])
