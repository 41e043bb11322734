"""What commands share: lines and progress on a terminal, option declarations, and how a failure is reported."""

import functools
import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from typer import Option
from typer.core import TyperCommand, TyperGroup

from featurestore.errors import ConfigError, MedusaError
from featurestore.runtime.durable import reason_of
from featurestore.runtime.failures import Failures, by_reason, table_of, write_failures

USAGE, FAILED_FILES, BY_SIGNAL = 2, 1, 128  # exit codes: a mistake; some files failed; 128 + the signal
PIPE_WIDTH = 140  # columns where no terminal has a width of its own
NOTEBOOK = "JPY_PARENT_PID"  # which Jupyter sets for its kernels
# Failures are named one by one; of more than so many the first ones, a count of each reason, and where all are listed.
LISTED_FAILURES, FIRST_FAILURES, LISTED_REASONS = 100, 20, 10


def console(stderr: bool = False) -> Console:
    """Return the console of stdout, for results, or of stderr, for progress and errors; brackets are text on both.

    Neither is cut to 80 columns in a pipe, or in a notebook, where `!medusa ...` has a terminal on which no bar moves.
    """
    stream = sys.stderr if stderr else sys.stdout
    in_notebook = NOTEBOOK in os.environ
    width = None if (stream.isatty() and not in_notebook) or "COLUMNS" in os.environ else PIPE_WIDTH
    terminal = False if in_notebook else None
    return Console(stderr=stderr, width=width, highlight=False, markup=False, force_terminal=terminal)


def say(text: str, style: str = "", stderr: bool = False) -> None:
    """One line, never wrapped."""
    console(stderr).print(text, style=style, soft_wrap=True)


class Commands(TyperGroup):
    """Prints errors that a user can mend as one line, and how to go on after an interrupt."""

    order: ClassVar[Sequence[str]] = ()  # of the commands in `--help`

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=self.order.index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MedusaError as error:
            say(f"error: {' '.join(str(error).split())}", "red", stderr=True)
            raise typer.Exit(USAGE) from None
        except BrokenPipeError:
            raise  # the reader of our output left; typer ends quietly
        except OSError as error:
            line = f"{error.filename}: " if error.filename else ""
            say(f"error: {line}{error.strerror or error}", "red", stderr=True)
            raise typer.Exit(USAGE) from None
        except KeyboardInterrupt as stop:
            signum = getattr(stop, "signum", signal.SIGINT)
            say(f"stopped by {signal.Signals(signum).name}; run the same command again to go on.", stderr=True)
            raise typer.Exit(BY_SIGNAL + signum) from None


class Command(TyperCommand):
    """Warns of an option of one text that is given more than once: the last alone counts, as in `--by a --by b`.

    Numbers and paths are passed over: scripts put those of their caller behind their own.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        remaining = super().parse_args(ctx, args)
        order = Counter(self.make_parser(ctx).parse_args(args=given)[2])
        for param in (param for param, n in order.items() if n > 1 and param.param_type_name == "option"):
            value = ctx.params.get(param.name)
            if isinstance(value, Sequence) and not param.multiple:
                name = max(param.opts, key=len)
                line = f"warning: {name} is given {order[param]} times; the last one alone is taken: {value}"
                say(line, "yellow", stderr=True)
        return remaining


class App(typer.Typer):
    """A typer app whose commands are of the class `Command`."""

    def command(self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **settings: Any) -> Any:
        return super().command(name, cls=cls or Command, **settings)


def typer_app(**settings: Any) -> typer.Typer:
    return App(
        context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True, add_completion=False,
        pretty_exceptions_enable=False, rich_markup_mode="markdown", **settings,
    )  # fmt: skip


def store_place(text: str) -> Path | str:
    """Return a path, or a URL as it is (a path would lose one of its slashes)."""
    return str(text) if "://" in str(text) else Path(text)


def panel(title: str) -> Callable[..., Any]:
    """Return an option in one panel of the help: panel(help text, option names, settings)."""
    return lambda text, *names, **settings: Option(*names, help=text, rich_help_panel=title, **settings)


reads, encodes, writes = panel("Input"), panel("Encoder"), panel("Output")
network, training, system = panel("Network"), panel("Training"), panel("System")
ManifestOption = Annotated[Path, reads("Corpus table (.csv, .parquet).", "--manifest", "-m")]
StoreOption = Annotated[
    Path, reads("Feature store: directory, or URL to read.", "--store", "-s", parser=store_place, metavar="PATH")
]
CvOption = Annotated[str | None, reads("Manifest column of folds, e.g. fold.")]
RunsOption = Annotated[Path, writes("Directory of the run directories.")]
DeviceOption = Annotated[str, system("auto, cpu, cuda, cuda:1, ...")]


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take its options in dataclasses: each one in the signature stands for the options of its fields.

    A field is declared as a parameter is: its type Annotated with an option, its default that of the option. The names
    of all fields and of the command's other parameters must differ.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}  # of a parameter: its dataclass and the names of the fields
    for parameter in inspect.signature(command).parameters.values():
        group: Any = parameter.annotation
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        fields = inspect.signature(group).parameters
        groups[parameter.name] = (group, list(fields))
        parameters += fields.values()

    @functools.wraps(command)
    def call(**values: Any) -> None:
        made = {
            name: group(**{field: values.pop(field) for field in fields}) for name, (group, fields) in groups.items()
        }
        command(**made, **values)

    return declare(call, parameters)


def declare(command: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Have typer read these parameters, which the command receives by name, in place of those of its signature."""
    by_name = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    command.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


class Show:
    """Updates one progress bar: show(done, total, what is going on, further fields)."""

    def __init__(self, bar: Progress, title: str, total: float) -> None:
        self._bar = bar
        number = bar.add_task(title, total=total, rate="")
        self.task = next(task for task in bar.tasks if task.id == number)
        self.close: Callable[[], None] = bar.stop

    def __call__(self, done: float, total: float, title: str | None = None, **fields: Any) -> None:
        self._bar.update(self.task.id, completed=done, total=total, description=title, **fields)


@contextmanager
def working(title: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on stderr, where that is a terminal, and yield the function that changes its text."""
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield lambda text: None
        return
    with terminal.status(Text(title)) as status:
        yield lambda text: status.update(Text(text))


@contextmanager
def bar(title: str, total: int, *columns: str) -> Iterator[Show]:
    """Show a progress bar on stderr: what, how much, further columns, remaining time."""
    texts = [TextColumn(column, markup=False) for column in columns]
    terminal = console(stderr=True)
    count: Any = MofNCompleteColumn() if columns else TextColumn("{task.percentage:>3.0f} %")
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), count, *texts, TimeRemainingColumn(),
        console=terminal, transient=True, speed_estimate_period=60, disable=not terminal.is_terminal,
    )  # fmt: skip
    with bar:
        yield Show(bar, title, total)


def end_with_failures(failed: Failures, output: Path | str | None = None) -> None:
    """Name each file that failed, and end with exit code 1 when there is one; output: see `say_failures`."""
    say_failures(failed, output)
    if failed:
        raise typer.Exit(FAILED_FILES)


def say_failures(
    failed: Failures, output: Path | str | None = None, *, word: str = "failed", stderr: bool = True
) -> None:
    """Print a line for each failure; of very many the first ones and a count of each reason, and write all to a table.

    output: what the command writes, beside which the table stands (None: in the current directory).
    """
    many = len(failed) > LISTED_FAILURES
    for key, reason in failed[: FIRST_FAILURES if many else None]:
        say(f"{word}: {reason if key in reason else f'{key}: {reason}'}", "red", stderr=stderr)
    if not many:
        return
    table = table_of(output)
    try:
        write_failures(table, failed)
        listed = f"{table} lists them all"
    except OSError as error:
        listed = f"{table}, the list of them all, can't be written ({reason_of(error)})"
    say(f"... and {len(failed) - FIRST_FAILURES:,} more; {listed}. In all:", "red", stderr=stderr)
    reasons = by_reason(failed)
    for reason, n in reasons[:LISTED_REASONS]:
        say(f"{n:>9,}  {reason}", "red", stderr=stderr)
    if rest := sum(n for _, n in reasons[LISTED_REASONS:]):
        say(f"{rest:>9,}  other reasons", "red", stderr=stderr)


def split_pair(option: str, text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise ConfigError(f"{option} {text!r}: expected NAME=VALUE.")
    return name, value


def directory_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
