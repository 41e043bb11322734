"""`medusa prepare`: a corpus's manifest, one table of its utterances."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from featurestore.errors import ConfigError
from featurestore.terminal import console, say, split_names, split_pair, typer_app

if TYPE_CHECKING:
    from featurestore.manifest import Manifest

TableOption = Annotated[Path, Option("--output", "-o", help="Manifest to write (.csv, .parquet).")]
JoinOption = Annotated[int | None, Option(help="Join the corpus's folds to this many (former ones: fold_was).", min=2)]

prepare_app = typer_app(help="Make a corpus's manifest: one table of its utterances.")


@prepare_app.command("ravdess")
def prepare_ravdess(
    root: Annotated[Path, Option(help="Directory of Actor_01 ... Actor_24.")],
    output: TableOption,
    join_folds: JoinOption = None,
) -> None:
    """Read RAVDESS's own layout (speech; wav, flac or ogg), with EmoBox's six speaker-disjoint folds.

    Example: `medusa prepare ravdess --root RAVDESS -o ravdess.csv`
    """
    from featurestore.corpora import read_ravdess

    _write_manifest(read_ravdess(root), output, join_folds)


@prepare_app.command("csv")
def prepare_csv(
    table: Annotated[Path, Argument(help="A table that you have: .csv, .tsv or .parquet.")],
    output: TableOption,
    column: Annotated[list[str] | None, Option(help="NAME=YOURS: id=FileName, label=emotion, vote_sad=Sad.")] = None,
    attribute: Annotated[list[str] | None, Option(help="NAME[=YOURS]:LOW:HIGH: arousal=EmoAct:1:7.")] = None,
    classes: Annotated[str | None, Option(help="Classes in their order, e.g. angry,sad,happy.")] = None,
    root: Annotated[Path | None, Option(help="Where relative audio paths start; default: the table's place.")] = None,
    check_audio: Annotated[bool, Option(help="Look whether every audio file exists.")] = True,
    labels: Annotated[bool, Option(help="Insist on labels, votes or attributes.")] = True,
    join_folds: JoinOption = None,
) -> None:
    """Validate a table, give its columns the manifest's names, and report every problem at once.

    Repeat --column and --attribute for each.

    Example: `medusa prepare csv labels.csv -o corpus.csv --column id=FileName --column label=EmoClass`
    """
    from featurestore.corpora import read_table

    columns = dict(split_pair("--column", text) for text in column or [])
    if "id" in columns:
        columns["utterance_id"] = columns.pop("id")
    ranges = {}
    for text in attribute or []:
        name, theirs, low, high = _attribute(text)
        ranges[name] = (low, high)
        columns |= {f"attr_{name}": theirs} if theirs else {}
    manifest = read_table(
        table,
        columns=columns,
        classes=None if classes is None else split_names(classes),
        attributes=ranges,
        root=root,
        check_audio=check_audio,
        require_label=labels,
    )
    _write_manifest(manifest, output, join_folds)


def _write_manifest(manifest: "Manifest", output: Path, join: int | None) -> None:
    from featurestore.corpora.folds import join_folds
    from featurestore.corpora.summary import summary_table

    notes = manifest.notes
    if join is not None:
        manifest = join_folds(manifest, join)
    manifest.write(output)
    console().print(summary_table(manifest))
    for note in notes:
        say(f"note: {note}", "dim")
    say(f"wrote {output}")


def _attribute(text: str) -> tuple[str, str, float, float]:
    """NAME[=YOURS]:LOW:HIGH -> (name, column or "", low, high)."""
    try:
        left, low, high = text.rsplit(":", 2)
        name, _, theirs = left.partition("=")
        return name, theirs, float(low), float(high)
    except ValueError:
        raise ConfigError(f"--attribute {text!r}: expected NAME:LOW:HIGH or NAME=COLUMN:LOW:HIGH.") from None
