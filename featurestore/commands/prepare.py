"""`medusa prepare`: a corpus's manifest, one table of its utterances."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from featurestore.commands.recordings import (
    EveryOption,
    FilesArgument,
    OptionalManifest,
    SegmentsOption,
    SpanOption,
    manifest_of,
)
from featurestore.corpora import CORPORA, Corpus
from featurestore.errors import ConfigError
from featurestore.terminal import bar, console, declare, end_with_failures, panel, say, split_pair, typer_app, writes

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest

labels, folds = panel("Labels"), panel("Folds")
TableOption = Annotated[Path, Option("--output", "-o", help="Manifest to write (.csv, .parquet).")]
MergeOption = Annotated[list[str] | None, labels("CLASS=INTO, repeat for each: excited=happy.")]
DropOption = Annotated[str | None, labels("Classes whose utterances are left out: other,fear.")]
LabelledOption = Annotated[bool, labels("Leave out utterances without a label.", "--labelled-only")]
EscapeOption = Annotated[
    bool,
    writes(
        "Put ' before text in a CSV that a spreadsheet would take for a formula (= + - @); this changes the text.",
        "--escape-formulas",
    ),
]
JoinOption = Annotated[int | None, folds("Join the corpus's folds to this many (former ones: fold_was).", min=2)]
AFTER: dict[str, tuple[Any, Any]] = {
    "output": (TableOption, inspect.Parameter.empty),
    "merge": (MergeOption, None),
    "drop": (DropOption, None),
    "labelled_only": (LabelledOption, False),
    "join_folds": (JoinOption, None),
    "escape_formulas": (EscapeOption, False),
}
OPTIONS: dict[str, tuple[Any, Any]] = {  # a reader's keyword -> type; None is the reader's own default
    "scheme": (str | None, None),
    "label": (str | None, None),
    "layout": (str | None, None),
    "tables": (str | None, None),
    "audio": (Path | None, None),
    "attribute_range": (str | None, None),
    "speaker_by_gender": (bool, False),
    "secondary": (float | None, None),
    "transcripts": (bool, True),
    "check_audio": (bool, True),
    "durations": (bool, False),
}

prepare_app = typer_app(help="Make a corpus's manifest: one table of its utterances.")


def _command(name: str, corpus: Corpus) -> Callable[..., None]:
    """Return the command of one corpus: its source, the options it declares, and those that all have."""

    def prepare(**options: Any) -> None:
        after = {option: options.pop(option) for option in AFTER}
        source = options.pop("source")
        finish(corpus(source, **{option: value for option, value in options.items() if value is not None}), **after)

    source = Argument(help=corpus.source) if corpus.is_file else Option("--root", help=corpus.source)
    parameters = {"source": (Annotated[Path, source], inspect.Parameter.empty)}
    for option, about in corpus.options.items():
        kind, default = OPTIONS[option]
        parameters[option] = (Annotated[kind, Option(help=about)], default)
    example = "FILE" if corpus.is_file else "--root DIR"
    prepare.__doc__ = f"{corpus.about}\n\nExample: `medusa prepare {name} {example} -o {name}.csv`"
    by_name = inspect.Parameter.KEYWORD_ONLY
    declared = (parameters | AFTER).items()
    return declare(prepare, [inspect.Parameter(n, by_name, default=d, annotation=t) for n, (t, d) in declared])


for _name, _corpus in CORPORA.items():
    prepare_app.command(_name)(_command(_name, _corpus))


@prepare_app.command("csv")
def prepare_csv(
    table: Annotated[Path, Argument(help="A table that you have: .csv, .tsv or .parquet.")],
    output: TableOption,
    column: Annotated[list[str] | None, Option(help="NAME=YOURS: id=FileName, label=emotion, vote_sad=Sad.")] = None,
    attribute: Annotated[list[str] | None, Option(help="NAME[=YOURS]:LOW:HIGH: arousal=EmoAct:1:7.")] = None,
    classes: Annotated[str | None, Option(help="Classes in their order, e.g. angry,sad,happy.")] = None,
    root: Annotated[Path | None, Option(help="Where relative audio paths start; default: the table's place.")] = None,
    check_audio: Annotated[bool, Option(help="Check that every audio file exists.")] = True,
    split_name: Annotated[
        list[str] | None, Option(help="YOURS=train, development, test, test1 ... for each name of a split: 0=train.")
    ] = None,
    join: Annotated[
        list[str] | None, Option(help="FILE:YOURS[=THEIRS]: add a table's columns by a shared one: people.csv:speaker.")
    ] = None,
    labels: Annotated[bool, Option(help="Require labels, votes or attributes.")] = True,
    merge: MergeOption = None,
    drop: DropOption = None,
    labelled_only: LabelledOption = False,
    join_folds: JoinOption = None,
    escape_formulas: EscapeOption = False,
) -> None:
    """Validate a table, give its columns the manifest's names, and report every problem at once.

    Repeat --column and --attribute for each. speaker=Gender+SpkrID joins two columns with a _ between.

    Example: `medusa prepare csv labels.csv -o corpus.csv --column id=FileName --column label=EmoClass`
    """
    from featurestore.corpora.table import read_table

    columns = dict(_column(text) for text in column or [])
    if "id" in columns:
        columns["utterance_id"] = columns.pop("id")
    ranges = {}
    for text in attribute or []:
        name, their_column, low, high = _attribute(text)
        ranges[name] = (low, high)
        columns |= {f"attr_{name}": their_column} if their_column else {}
    manifest = read_table(
        table,
        columns=columns,
        classes=classes,
        split_names=dict(split_pair("--split-name", text) for text in split_name or []),
        joined=[_join(text) for text in join or []],
        attributes=ranges,
        root=root,
        check_audio=check_audio,
        require_label=labels,
    )
    finish(manifest, output, merge, drop, labelled_only, join_folds, escape_formulas)


@prepare_app.command("join")
def prepare_join(
    manifests: Annotated[list[str], Argument(help="Two manifests or more, each FILE or NAME=FILE.")],
    output: TableOption,
    common_classes: Annotated[bool, labels("Leave out classes that some corpus lacks.", "--common-classes")] = False,
    rescale_attributes: Annotated[
        bool, labels("Move attributes to the range of the first corpus.", "--rescale-attributes")
    ] = False,
    merge: MergeOption = None,
    drop: DropOption = None,
    labelled_only: LabelledOption = False,
    escape_formulas: EscapeOption = False,
) -> None:
    """Join manifests of several corpora: one label scheme, ids that are unique, and a column `corpus`.

    A corpus is called NAME, else as its file. Classes of one name are one class, after --merge in every corpus.

    Example: `medusa prepare join iemocap.csv crema-d.csv -o both.csv --merge fearful=fear --common-classes`
    """
    from featurestore.corpus.join import join_manifests
    from featurestore.corpus.manifest import Manifest
    from featurestore.corpus.relabel import relabelled

    pairs = dict(split_pair("--merge", text) for text in merge or [])
    corpora = {}
    for text in manifests:
        name, path = text.split("=", 1) if "=" in text and not Path(text).exists() else (Path(text).stem, text)
        if name in corpora:
            raise ConfigError(f"Two manifests are called {name!r}; give one another name: NAME={path}.")
        corpora[name] = Manifest.read(path)
    classes = {label for manifest in corpora.values() for label in manifest.scheme.classes}
    strange = sorted(set(pairs) - classes)
    if strange:
        raise ConfigError(f"--merge {strange[0]}: no corpus has this class, only {', '.join(sorted(classes))}.")
    for name, manifest in corpora.items():
        of_corpus = {label: into for label, into in pairs.items() if label in manifest.scheme.classes}
        corpora[name] = relabelled(manifest, of_corpus) if of_corpus else manifest
    joined = join_manifests(
        corpora, common_classes=common_classes, rescale_attributes=rescale_attributes, name=output.stem
    )
    finish(joined, output, None, drop, labelled_only, escape_formulas=escape_formulas)


@prepare_app.command("segments")
def prepare_segments(
    output: TableOption,
    files: FilesArgument = None,
    manifest: OptionalManifest = None,
    every: EveryOption = None,
    span: SpanOption = None,
    segments: SegmentsOption = None,
    escape_formulas: EscapeOption = False,
) -> None:
    """Cut recordings into utterances: windows, speech, or the segments of a table; features are made of each piece.

    Windows start at 0, --every, 2 x --every ... and are --span long; one that reaches the recording's end ends there,
    and is the last. Ids are like call.m4a[2-8]. A recording that can't be decoded is reported and the rest done (exit
    code 1).

    Example: `medusa prepare segments calls/ --every 2 --span 6 -o windows.csv`
    """
    from featurestore.recordings.cut import cut, cutter_of

    cutter = cutter_of(every, span, segments)
    if cutter is None:
        raise ConfigError("Give --every and --span, or --segments.")
    table, failed = manifest_of(files, manifest)
    with bar("recordings", len(table)) as show:
        pieces = cut(table, cutter, lambda done, total: show(done, total))
    for note in pieces.notes:
        say(f"note: {note}")
    if pieces.manifest is None:
        end_with_failures([*failed, *pieces.failed], output)
        raise ConfigError(f"No segment in {len(table):,} recordings; nothing was written.")
    pieces.manifest.write(output, escape_formulas=escape_formulas)
    say(f"wrote {len(pieces.manifest):,} segments of {len(table) - len(pieces.failed):,} recordings to {output}")
    end_with_failures([*failed, *pieces.failed], output)


def finish(
    manifest: "Manifest",
    output: Path,
    merge: list[str] | None = None,
    drop: str | None = None,
    labelled_only: bool = False,
    join_folds: int | None = None,
    escape_formulas: bool = False,
) -> None:
    """Merge and drop classes, join folds, write the manifest and print what it holds."""
    from featurestore.corpora.doubts import doubts
    from featurestore.corpus import splits
    from featurestore.corpus.relabel import names_with_commas, relabelled
    from featurestore.corpus.summary import summary_table

    if merge or drop or labelled_only:
        pairs = dict(split_pair("--merge", text) for text in merge or [])
        manifest = relabelled(manifest, pairs, names_with_commas(drop or "", manifest.scheme.classes), labelled_only)
    if join_folds is not None:
        manifest = splits.join_folds(manifest, join_folds)
    manifest.write(output, escape_formulas=escape_formulas)
    console().print(summary_table(manifest))
    for note in [*manifest.notes, *doubts(manifest)]:
        say(f"note: {note}", "dim")
    say(f"wrote {output}")


def _join(text: str) -> tuple[Path, str, str]:
    """Parse FILE:YOURS[=THEIRS] into (file, our column, theirs)."""
    path, _, columns = text.rpartition(":")
    ours, _, column = columns.partition("=")
    if not path or not ours:
        raise ConfigError(f"--join {text!r}: expected FILE:YOURS or FILE:YOURS=THEIRS, such as people.csv:speaker.")
    return Path(path), ours, column or ours


def _column(text: str) -> tuple[str, str]:
    """Parse NAME=YOURS; `id=` is the column that has no name."""
    return (text[:-1], "") if text.endswith("=") and text.count("=") == 1 else split_pair("--column", text)


def _attribute(text: str) -> tuple[str, str, float, float]:
    """Parse NAME[=YOURS]:LOW:HIGH into (name, column or "", low, high)."""
    try:
        left, low, high = text.rsplit(":", 2)
        name, _, column = left.partition("=")
        return name, column, float(low), float(high)
    except ValueError:
        raise ConfigError(f"--attribute {text!r}: expected NAME:LOW:HIGH or NAME=COLUMN:LOW:HIGH.") from None
