"""`medusa evaluate`: scores of posteriors, or of files of predictions; of several, one table."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from ensemble.commands.choices import ColumnOption, columns_of, one_of
from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided_as_made
from ensemble.commands.protocol import StrictOption, tell_protocol
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, writing
from featurestore.terminal import CvOption, ManifestOption, StoreOption, console, reads, say, working, writes

if TYPE_CHECKING:
    from ensemble.evaluation.assess import Assessment
    from ensemble.evaluation.table import SystemTable

FORMATS = ("markdown", "latex", "csv", "json")


def evaluate(
    names: Annotated[
        list[str],
        Argument(help="Members or ensembles in the store, or files (.csv, .tsv, .parquet, .jsonl); several: a table."),
    ],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    split: Annotated[str | None, reads("Score this split alone.")] = None,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    column: ColumnOption = None,
    against: Annotated[str | None, reads("The system to compare with; of several by default the first.")] = None,
    common: Annotated[bool, reads("Score only the utterances that all systems predict.", "--common")] = False,
    by: Annotated[
        str | None, reads("Score each value of a column, and report the gap between them: gender, speaker.")
    ] = None,
    bootstrap: Annotated[int, reads("Resamples of the speakers, for intervals; 0: none.", min=0)] = 1000,
    seed: Annotated[int, reads("Seed of the resamples.", min=0)] = 0,
    calibration: Annotated[bool, reads("Report ECE before and after temperature scaling.", "--calibration")] = False,
    strict: StrictOption = False,
    output: Annotated[
        Path | None, writes("Write the table of systems (.md, .tex, .csv, .json).", "--output", "-o")
    ] = None,
    format: Annotated[
        str | None,
        writes(f"Format of the table: {', '.join(FORMATS)}; without --output it is printed.", callback=one_of(FORMATS)),
    ] = None,
    json_file: Annotated[Path | None, writes("Write the scores.", "--json")] = None,
    confusion: Annotated[Path | None, writes("Draw confusion matrices (.png).")] = None,
    reliability: Annotated[Path | None, writes("Draw reliability curves (.png).")] = None,
) -> None:
    """Score predictions: macro-F1, accuracy, UAR, CCC, classes, confusion, intervals by speaker, spread over folds.

    Several systems make one table, with paired differences to the first (or to --against).

    Example: `medusa evaluate meta -m corpus.csv --against m01 --by gender --calibration`

    Example: `medusa evaluate m01 m02 meta theirs.csv -m corpus.csv -o table.tex`
    """
    from ensemble.evaluation.assess import ScoringOptions
    from ensemble.evaluation.parts import assess_parts
    from ensemble.evaluation.protocol import check_systems
    from ensemble.evaluation.report import assessment_report, write_pictures
    from ensemble.evaluation.systems import open_systems
    from ensemble.evaluation.table import tables_of
    from ensemble.evaluation.table_report import format_of, terminal_tables, text_of
    from featurestore.corpus.manifest import Manifest

    kind = format_of(output, format)
    as_table = len(names) > 1 or kind is not None
    if as_table:
        _check_alone({"--by": by, "--calibration": calibration, "--confusion": confusion, "--reliability": reliability})
    elif common:
        raise ConfigError("--common is for several systems; name them, or leave it out.")
    system_names = _each_once(names, against)
    printed = kind is not None and output is None
    corpus = Manifest.read(manifest)
    corpus.check_labelled()
    table = divided_as_made(corpus, store, system_names, train_on, test_on, cv=cv, split=split, stderr=printed)
    systems_read, opened = open_systems(system_names, table, store, columns_of(column), split)
    systems = dict(zip(system_names, systems_read, strict=True))
    protocol = check_systems(table, systems.values(), cv, split=split, store=opened)
    tell_protocol(protocol, strict, stderr=printed)
    parts: Mapping[str, Assessment] | Mapping[str, SystemTable]
    assessments: Mapping[str, Assessment] = {}
    if as_table:
        with working("resampling speakers"):
            parts = tables = tables_of(
                systems, table, reference=against, cv=cv, split=split, common=common, n_resamples=bootstrap, seed=seed
            )
        text = "" if kind is None else text_of(tables, kind, protocol.to_dict(), protocol.lines())
        if text and output is None:
            sys.stdout.write(text)
        else:
            console().print(terminal_tables(tables))
        if text and output is not None:
            _write(output, text)
    else:
        options = ScoringOptions(bootstrap, seed, by, calibration or reliability is not None)
        other = None if against is None else systems[against]
        with working("resampling speakers"):
            parts = assessments = assess_parts(systems[names[0]], table, options, against=other, cv=cv, split=split)
        for part, assessment in assessments.items():
            console().print(assessment_report(f"{names[0]} ({part})", assessment))
    if json_file is not None:
        scores = {part: each.to_dict() | {"protocol": protocol.to_dict()} for part, each in parts.items()}
        _write(json_file, json.dumps(scores, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    for part, assessment in assessments.items():
        places = [
            path if path is None or len(parts) == 1 else path.with_stem(f"{path.stem}-{part}")
            for path in (confusion, reliability)
        ]
        for path in write_pictures(f"{names[0]} ({part})", assessment, *places):
            say(f"wrote {path}")


def _each_once(names: Sequence[str], against: str | None) -> list[str]:
    """Return the names of all systems; ConfigError for one that comes twice."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{twice[0]!r} is named twice; name each system once.")
    return [*names, *([against] if against is not None and against not in names else [])]


def _check_alone(options: Mapping[str, Any]) -> None:
    given_options = [option for option, value in options.items() if value]
    if given_options:
        raise ConfigError(
            f"{', '.join(given_options)}: of one system alone. Leave it out of a table of systems, or evaluate the "
            "systems one by one."
        )


def _write(path: Path, text: str) -> None:
    with writing(path, ConfigError):
        replace_text(path, text)
    say(f"wrote {path}")
