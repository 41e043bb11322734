"""`medusa run`: a whole recipe."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from ensemble.commands.protocol import StrictOption
from featurestore.errors import ConfigError, MedusaError
from featurestore.runtime.wording import format_seconds, split_names
from featurestore.terminal import DeviceOption, console, reads, say, writes

if TYPE_CHECKING:
    from ensemble.recipes.plan import Places, Step


def run(
    ctx: typer.Context,
    recipe: Annotated[str | None, Argument(help="A recipe's name (see --list), or a YAML file.")] = None,
    output: Annotated[
        Path | None, writes("Directory of everything it makes; default: the recipe's name.", "--output", "-o")
    ] = None,
    store: Annotated[
        Path | None, writes("Feature store; default: in the output. Recipes may share one.", "--store", "-s")
    ] = None,
    settings: Annotated[
        list[str] | None, reads("NAME=VALUE: a variable, or an entry: members.m01.seed=3.", "--set")
    ] = None,
    only: Annotated[list[str] | None, reads("Run only these steps: featurize, members/m01, ...")] = None,
    again: Annotated[list[str] | None, reads("Repeat these steps though they are done; a member starts anew.")] = None,
    strict: StrictOption = False,
    device: DeviceOption = "auto",
    page: Annotated[
        bool, writes("Write report.html, the page of `medusa report`, at the end.", "--report/--no-report")
    ] = True,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the plan, and what of it is done.")] = False,
    listing: Annotated[bool, Option("--list", help="List the recipes that come with the program.")] = False,
) -> None:
    """Carry out a recipe: prepare, transcribe, featurize, members, meta, evaluate. What is done is skipped.

    Killed at any moment, the same command goes on.

    Example: `medusa run medusa14 --set corpus=MSP-PODCAST --dry-run`
    """
    if listing:
        _print_recipes()
        return
    from ensemble.recipes.execute import named_steps, run_steps, why_run
    from ensemble.recipes.plan import Places, steps_of
    from ensemble.recipes.recipe import read_recipe

    if recipe is None:
        raise ConfigError("Name a recipe (`medusa run --list`), or a YAML file.")
    read = read_recipe(recipe, settings or [])
    directory = output or Path(read.name)
    places = Places(directory, store or directory / "store")
    commands = ctx.find_root().command
    steps = steps_of(read, commands, places, device)
    names, anew = split_names(",".join(only or [])), split_names(",".join(again or []))
    if dry_run:
        repeated = named_steps(steps, anew)
        for step in named_steps(steps, names) or steps:
            say(f"{step.name}: {why_run(step, places, repeated) or 'done'}", "bold")
            say(f"  $ medusa {shlex.join(step.arguments)}", "cyan")
        return

    from ensemble.recipes.summary import refuse_unclean, write_summary

    def call(arguments: tuple[str, ...]) -> int:
        return commands.main([*arguments, *_strict(arguments, strict)], "medusa", standalone_mode=False) or 0

    code = run_steps(steps, places, call, only=names, again=anew, begin=_begin)
    if code:
        say("The same command goes on from here; --again STEP does a step anew, a member from its start.", stderr=True)
        raise typer.Exit(code)
    if strict:
        refuse_unclean(steps)
    _print_times(steps, places)
    say(f"wrote {write_summary(read, steps, places)}")
    if page:
        _write_page(read.name, steps, places)


def _strict(arguments: Sequence[str], strict: bool) -> list[str]:
    """Return the option for a step that checks folds and splits."""
    return ["--strict"] if strict and arguments[0] in ("fit-deepser", "fit-meta", "compare", "evaluate") else []


def _begin(step: "Step", number: int, of: int, why: str) -> None:
    say(f"\n[{number}/{of}] {step.name}: {why or 'done before'}", "bold")
    if why:
        say(f"$ medusa {shlex.join(step.arguments)}", "cyan")


def _print_recipes() -> None:
    from rich import box
    from rich.table import Table

    from ensemble.recipes.recipe import built_in, read_recipe

    table = Table("recipe", "what", "--set", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in built_in():
        read = read_recipe(name, values_needed=False)
        variables = [f"{key}=..." if value is None else key for key, value in read.variables.items()]
        table.add_row(read.name, read.about, " ".join(variables))
    console().print(table)


def _write_page(title: str, steps: "list[Step]", places: "Places") -> None:
    """Write the page of the run's systems, if there are any yet; a page that can't be made ends no run."""
    from ensemble.commands.report import write_report
    from ensemble.report.collect import PageOptions
    from ensemble.report.runs import find_runs

    sets = [thing for step in steps for thing in step.makes if thing.kind == "set" and thing.path == places.store]
    manifests = [thing.path for step in steps for thing in step.reads if thing.kind == "manifest"]
    if not manifests or not any(thing.name.startswith("posteriors/") for thing in sets) or not places.runs.is_dir():
        return
    try:
        runs = find_runs([str(places.directory)], manifests[-1], places.store)
        write_report(runs, PageOptions(title=title), places.directory / "report.html")
    except MedusaError as error:
        say(f"note: no report.html: {' '.join(str(error).split())}", "dim", stderr=True)


def _print_times(steps: "list[Step]", places: "Places") -> None:
    from rich import box
    from rich.table import Table

    from ensemble.recipes.summary import times

    table = Table("step", "time", box=box.SIMPLE_HEAD, pad_edge=False)
    for name, seconds, attempts in times(steps, places):
        table.add_row(name, format_seconds(seconds) + (f" (attempt {attempts})" if attempts > 1 else ""))
    console().print(table)
