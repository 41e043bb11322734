"""`medusa split`: who learns and who is tested, written into the manifest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from featurestore.errors import ConfigError
from featurestore.runtime.wording import split_names
from featurestore.terminal import console, say, split_pair

if TYPE_CHECKING:
    from rich.table import Table

    from featurestore.corpus.audit import Part


def split(
    output: Annotated[Path, Option("--output", "-o", help="Manifest to write; may be the same.")],
    named: Annotated[
        Path | None, Argument(metavar="[MANIFEST]", help="Corpus table (.csv, .parquet).", show_default=False)
    ] = None,
    manifest: Annotated[
        Path | None, Option("--manifest", "-m", help="Corpus table (.csv, .parquet), named by an option.")
    ] = None,
    folds: Annotated[int | None, Option(help="Number of folds, written to column fold (for --cv fold).", min=2)] = None,
    hold_out: Annotated[
        float | None, Option(help="Share of split train that becomes development, such as 0.1.")
    ] = None,
    balanced_sets: Annotated[
        int | None, Option(help="Number of draws of equal classes, written to column balanced_sets.", min=1)
    ] = None,
    given: Annotated[Path | None, Option(help="Table of utterance_id and split or fold to take over.")] = None,
    split_name: Annotated[
        list[str] | None,
        Option(
            help="Names in the column of --given: YOURS=train, development, test, ... for each of its names: 0=train."
        ),
    ] = None,
    by: Annotated[
        str, Option(help="What stays in one part: speaker, a column such as session, or utterance.")
    ] = "speaker",
    within: Annotated[str | None, Option(help="Divide only these splits, e.g. train,development.")] = None,
    seed: Annotated[int, Option(help="Seed of every random draw.")] = 0,
) -> None:
    """Divide a corpus: given partitions, folds, a held-out part, balanced sets. The same seed gives the same parts.

    Parts are balanced in size and classes. They become columns; what a column held before is kept as NAME_was. After
    --hold-out, folds are of the rest, and balanced sets of what was held out.

    Example: `medusa split corpus.csv -o corpus.csv --folds 5 --by speaker`
    """
    from featurestore.corpus import splits
    from featurestore.corpus.audit import part_summaries
    from featurestore.corpus.manifest import Manifest
    from featurestore.corpus.protocol import check_manifest
    from featurestore.corpus.tables import read_table_file

    corpus = named or manifest
    if corpus is None or (named and manifest):
        raise ConfigError("Give the corpus table once: medusa split corpus.csv, or --manifest corpus.csv.")
    if (folds, hold_out, balanced_sets, given) == (None,) * 4:
        raise ConfigError("Nothing to do: give --folds, --hold-out, --balanced-sets or --given.")
    if split_name and given is None:
        raise ConfigError("--split-name renames the splits of a table; name that table with --given.")
    names = dict(split_pair("--split-name", text) for text in split_name or [])
    table, chosen = Manifest.read(corpus), split_names(within or "")
    if given is not None:
        table = splits.given_parts(table, read_table_file(given, any_delimiter=True), str(given), names)
    if hold_out is not None:
        table = splits.hold_out(table, hold_out, by=by, within=chosen or ["train"], seed=seed)
    if folds is not None:
        table = splits.assign_folds(table, folds, by=by, within=["train"] if hold_out else chosen, seed=seed)
    if balanced_sets is not None:
        drawn_from = ["development"] if hold_out else chosen or ["development"]
        table = splits.assign_balanced_sets(table, balanced_sets, within=drawn_from, seed=seed)
    table.write(output)
    for column in ("split", "fold"):
        if table.has(column):
            show_parts(column, part_summaries(table, column))
            for line in check_manifest(table, column).lines(notes=False):
                say(line, "yellow")
    for note in table.notes:
        say(f"note: {note}", "dim")
    say(f"wrote {output}")


def show_parts(column: str, parts: "list[Part]") -> None:
    """Print a row for each part; where that is too wide, the classes go into a table of their own."""
    from rich.measure import Measurement

    terminal = console()
    table = parts_table(column, parts)
    if Measurement.get(terminal, terminal.options.update(max_width=10_000), table).maximum <= terminal.width:
        terminal.print(table)
    else:
        terminal.print(parts_table(column, parts, classes=False), parts_table(column, parts, counts=False))


def parts_table(column: str, parts: "list[Part]", *, counts: bool = True, classes: bool = True) -> "Table":
    """Return a row for each part: counts (utterances, speakers, hours), and how many utterances of each class."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    hours = any(part.hours == part.hours for part in parts)
    unlabelled = any(part.n_unlabelled for part in parts)
    unknown = any(part.n_unknown_speakers for part in parts)
    table.add_column("" if column == "all" else column)
    names = ["utterances", "speakers", *["unknown speaker"] * unknown, *["hours", "min s", "median", "max"] * hours]
    labels = [*parts[0].classes, *["no label"] * unlabelled]
    for name in (*names * counts, *labels * classes):
        table.add_column(name, justify="right")
    for part in parts:
        cells = [f"{part.n_utterances:,}", f"{part.n_speakers:,}", *[f"{part.n_unknown_speakers:,}"] * unknown]
        if hours:
            durations = part.hours, part.shortest_s, part.median_s, part.longest_s
            shown = ["-" if value != value else f"{value:.2f}" for value in durations]
            shown[0] += f" of {part.n_timed:,}" * (0 < part.n_timed < part.n_utterances)
            cells += shown
        of_labels = [f"{n:,}" for n in part.classes.values()] + [f"{part.n_unlabelled:,}"] * unlabelled
        table.add_row(part.name or "none", *cells * counts, *of_labels * classes)
    return table
