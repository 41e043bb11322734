"""`medusa submit`: files for the Interspeech 2025 challenge, and whether one is valid."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ensemble.commands.choices import ColumnOption, columns_of
from ensemble.commands.corpora import divided_as_made
from ensemble.commands.protocol import StrictOption, tell_protocol
from featurestore.terminal import ManifestOption, StoreOption, reads, say, typer_app, writes

submit_app = typer_app(help="Write or check a challenge submission: task1, task2, check.")

SystemArgument = Annotated[str, Argument(help="A member or ensemble in the store, or a file of predictions.")]
FileOption = Annotated[Path, writes("Submission to write (.csv).", "--output", "-o")]
SplitOption = Annotated[str | None, reads("Utterances of this split alone, e.g. test3.")]


@submit_app.command("task1")
def submit_task1(
    name: SystemArgument,
    manifest: ManifestOption,
    output: FileOption,
    split: SplitOption = None,
    store: StoreOption = Path("store"),
    column: ColumnOption = None,
    strict: StrictOption = False,
) -> None:
    """Write `FileName,EmoClass`, a letter for each utterance; an invalid file is not written.

    Example: `medusa submit task1 meta -m msp.csv --split test3 -o task1.csv`
    """
    _submit("task1", name, manifest, output, split, store, column, strict)


@submit_app.command("task2")
def submit_task2(
    name: SystemArgument,
    manifest: ManifestOption,
    output: FileOption,
    split: SplitOption = None,
    store: StoreOption = Path("store"),
    column: ColumnOption = None,
    strict: StrictOption = False,
) -> None:
    """Write `FileName,EmoAct,EmoVal,EmoDom`, numbers from 1 to 7; an invalid file is not written.

    Example: `medusa submit task2 meta -m msp.csv --split test3 -o task2.csv`
    """
    _submit("task2", name, manifest, output, split, store, column, strict)


@submit_app.command("check")
def submit_check(
    file: Annotated[Path, Argument(help="A submission of either task.")],
    manifest: Annotated[
        Path | None, reads("The file must have its utterances, and no others.", "--manifest", "-m")
    ] = None,
    split: SplitOption = None,
    rows: Annotated[
        int | None, Option(help="Expected number of rows; without it and a manifest, the challenge's 3,200.")
    ] = None,
) -> None:
    """Check a submission: columns, number of rows, names, letters, ranges.

    Example: `medusa submit check task1.csv -m msp.csv --split test3`
    """
    from ensemble.evaluation.posteriors import split_rows
    from ensemble.evaluation.submission import check_submission, file_names
    from featurestore.corpus.manifest import Manifest
    from featurestore.errors import ConfigError

    expected = None
    if manifest is not None:
        table = Manifest.read(manifest)
        expected = file_names(table if split is None else split_rows(table, split))
    elif split is not None:
        raise ConfigError("--split chooses utterances of a manifest; give it with --manifest.")
    task, n = check_submission(file, expected, rows)
    say(f"{file}: a valid submission for {task}, {n:,} rows")


def _submit(
    task: str,
    name: str,
    manifest: Path,
    output: Path,
    split: str | None,
    store: Path,
    column: list[str] | None,
    strict: bool,
) -> None:
    from ensemble.evaluation.posteriors import split_rows
    from ensemble.evaluation.protocol import check_systems
    from ensemble.evaluation.submission import letter_notes, write_submission
    from ensemble.evaluation.systems import open_system
    from featurestore.corpus.cross_corpus import TEST
    from featurestore.corpus.manifest import Manifest
    from featurestore.store.feature_store import FeatureStore

    corpus = Manifest.read(manifest)
    table = divided_as_made(corpus, store, [name], None, None, cv=None, split=split)
    if table is not corpus and split is None:  # a system over corpora: those to learn from are nothing to submit
        split = TEST
    system = open_system(name, table, store, columns_of(column), split)
    opened = FeatureStore.open(store) if system.stored else None
    tell_protocol(check_systems(table, [system], split=split, store=opened), strict)
    chosen = table if split is None else split_rows(table, split)
    n = write_submission(task, system, chosen, output)
    for note in (*system.notes, *(letter_notes(system, chosen) if task == "task1" else ())):
        say(f"note: {note}", "dim")
    say(f"wrote {n:,} rows for {task} to {output}")
