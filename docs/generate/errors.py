"""Every exception class, and the exit codes of the commands."""

import inspect

from featurestore import errors, terminal
from generate.text import cell, table


def errors_page() -> str:
    """Return the page of errors and exit codes."""
    codes = [
        ["0", "everything asked for was done"],
        [str(terminal.FAILED_FILES), "some files failed: each is listed with its reason, the others are done"],
        [str(terminal.USAGE), "a mistake that you can mend: one line on standard error that begins with `error:`"],
        [f"{terminal.BY_SIGNAL} + signal", "stopped by a signal (130: Ctrl-C); the same command again goes on"],
    ]
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    rows = [
        [f"`{cls.__name__}`", f"`{cls.__base__.__name__}`" if cls.__base__ else "", cell(inspect.getdoc(cls) or "")]
        for cls in classes
        if issubclass(cls, errors.MedusaError)
    ]
    return (
        "\n\n".join(
            [
                "# Errors and exit codes",
                "## Exit codes",
                table(["code", "when"], codes),
                "## Exceptions",
                "In `featurestore.errors`, in Python. Each message names the file, key or setting, what was expected and "
                "what to do.",
                table(["class", "is a", "raised when"], rows),
            ]
        )
        + "\n"
    )
