"""The `medusa` command: every command in its panel, in the order of `--help`.

A command is arguments, one library call, and what came of it. Those of featurestore, ensemble and benchmarks lie in
their own `commands`; deepser has none, since `fit-deepser` prints an ensemble's scores and reads recipes' members, and
so is one of ensemble's. Heavy modules are imported inside the commands, so that `medusa --help` answers at once.
"""

import faulthandler
import gc
import os
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from ensemble.commands.ablate import ablate
from ensemble.commands.compare import compare
from ensemble.commands.evaluate import evaluate
from ensemble.commands.explore import explore
from ensemble.commands.export import export
from ensemble.commands.fit_deepser import fit_deepser
from ensemble.commands.fit_meta import fit_meta
from ensemble.commands.predict import predict
from ensemble.commands.probe import probe
from ensemble.commands.report import report
from ensemble.commands.run import run
from ensemble.commands.submit import submit_app
from featurestore.commands.audit import audit
from featurestore.commands.encoders import encoders
from featurestore.commands.featurize import featurize
from featurestore.commands.prepare import prepare_app
from featurestore.commands.split import split
from featurestore.commands.store import store_app
from featurestore.commands.transcribe import transcribe
from featurestore.terminal import Commands, say, typer_app

if TYPE_CHECKING or not __package__:
    from benchmarks.commands import bench_app
else:  # installed, this file is medusa_ser.cli, and benchmarks lies beside it
    from .benchmarks.commands import bench_app

DATA, MODELS, TOOLS = "Corpora and features", "Members and ensembles", "Tools"

Commands.order = (
    "prepare", "split", "audit", "transcribe", "encoders", "featurize", "probe", "fit-deepser", "ablate", "fit-meta",
    "compare", "evaluate", "report", "explore", "submit", "predict", "export", "run", "demo", "store", "bench",
)  # fmt: skip
app = typer_app(cls=Commands)


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        say(f"medusa-ser {version('medusa-ser')}")
        raise typer.Exit


@app.callback()
def medusa(
    version: Annotated[bool, Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Speech emotion recognition: encode speech once, train and ensemble on the features many times.

    The steps: prepare a manifest, featurize it, fit-deepser two or more members, fit-meta, evaluate, predict.
    `medusa demo` runs them on a small corpus that comes with the program.
    """


def demo(
    directory: Annotated[Path, Option(help="Directory of everything that the demo makes.")] = Path("demo-run"),
    fresh: Annotated[bool, Option("--fresh", help="Remove what an earlier run left there.")] = False,
) -> None:
    """Run every step on a small corpus that comes with the program; a second run skips what is done.

    Example: `medusa demo`
    """
    from ensemble.recipes.demo import forget, record_time, steps

    if fresh:
        forget(directory)
    for number, (title, arguments) in enumerate(steps(directory), 1):
        say(f"\n{title}", "bold")
        say(f"$ medusa {shlex.join(arguments)}", "cyan")
        started = time.monotonic()
        code = app(arguments, standalone_mode=False)
        if code:
            raise typer.Exit(code)
        record_time(directory, number, arguments, time.monotonic() - started)


app.add_typer(prepare_app, name="prepare", rich_help_panel=DATA)
app.command("split", rich_help_panel=DATA)(split)
app.command("audit", rich_help_panel=DATA)(audit)
app.command("transcribe", rich_help_panel=DATA)(transcribe)
app.command("encoders", rich_help_panel=DATA)(encoders)
app.command("featurize", rich_help_panel=DATA)(featurize)
app.add_typer(store_app, name="store", rich_help_panel=DATA)
app.command("probe", rich_help_panel=MODELS)(probe)
app.command("fit-deepser", rich_help_panel=MODELS)(fit_deepser)
app.command("ablate", rich_help_panel=MODELS)(ablate)
app.command("fit-meta", rich_help_panel=MODELS)(fit_meta)
app.command("compare", rich_help_panel=MODELS)(compare)
app.command("evaluate", rich_help_panel=MODELS)(evaluate)
app.command("report", rich_help_panel=MODELS)(report)
app.command("explore", rich_help_panel=MODELS)(explore)
app.add_typer(submit_app, name="submit", rich_help_panel=MODELS)
app.command("predict", rich_help_panel=MODELS)(predict)
app.command("export", rich_help_panel=MODELS)(export)
app.command("run", rich_help_panel=TOOLS)(run)
app.command("demo", rich_help_panel=TOOLS)(demo)
app.add_typer(bench_app, name="bench", rich_help_panel=TOOLS)


class _Terminated(KeyboardInterrupt):
    signum = signal.SIGTERM


def _terminate(signum: int, frame: object) -> None:
    raise _Terminated


def main() -> None:
    """Run the console script."""
    # Read when torch is loaded. Threads that spin while they wait made training 20 times slower on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A corpus's objects are there to stay: looking through them again and again costs seconds of starting a training.
    gc.set_threshold(20_000, 10, 10)
    # A file cut while it is read from its map ends the process (SIGBUS): print where, of that thread alone, since the
    # stacks of threads that still run can't be read safely.
    faulthandler.enable(all_threads=False)
    signal.signal(signal.SIGTERM, _terminate)  # so that temporary files go and checkpoints stay whole
    app(prog_name="medusa")


if __name__ == "__main__":
    main()
