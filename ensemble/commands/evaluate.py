"""`medusa evaluate`: scores of posteriors, or of a file of predictions."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from ensemble.commands.choices import ColumnOption, columns_of
from ensemble.commands.corpora import TestOnOption, TrainOnOption, divided_as_made
from ensemble.commands.protocol import StrictOption, tell_protocol
from featurestore.runtime.durable import replace_text
from featurestore.terminal import CvOption, ManifestOption, StoreOption, console, reads, say, working, writes


def evaluate(
    name: Annotated[str, Argument(help="A member or ensemble in the store, or a file (.csv, .tsv, .parquet, .jsonl).")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    split: Annotated[str | None, reads("This split alone.")] = None,
    train_on: TrainOnOption = None,
    test_on: TestOnOption = None,
    column: ColumnOption = None,
    against: Annotated[str | None, reads("A second system, to be compared.")] = None,
    by: Annotated[str | None, reads("Scores by the values of a column, and their gap: gender, speaker.")] = None,
    bootstrap: Annotated[int, reads("Resamples of the speakers, for intervals; 0: none.", min=0)] = 1000,
    seed: Annotated[int, reads("Of the resamples.", min=0)] = 0,
    calibration: Annotated[bool, reads("ECE before and after temperature scaling.", "--calibration")] = False,
    strict: StrictOption = False,
    json_file: Annotated[Path | None, writes("Write the scores.", "--json")] = None,
    confusion: Annotated[Path | None, writes("Draw confusion matrices (.png).")] = None,
    reliability: Annotated[Path | None, writes("Draw reliability curves (.png).")] = None,
) -> None:
    """Score predictions: macro-F1, accuracy, UAR, CCC, classes, confusion, intervals by speaker, spread over folds.

    Example: `medusa evaluate meta -m corpus.csv --against m01 --by gender --calibration`
    """
    import json

    from ensemble.evaluation.assess import Asked
    from ensemble.evaluation.parts import assess_parts
    from ensemble.evaluation.protocol import check_systems
    from ensemble.evaluation.report import assessment_report, write_pictures
    from ensemble.evaluation.systems import open_system
    from featurestore.corpus.manifest import Manifest

    table = divided_as_made(
        Manifest.read(manifest), store, [name, *([against] if against else [])], train_on, test_on,
        cv=cv, split=split,
    )  # fmt: skip
    system = open_system(name, table, store, columns_of(column), split)
    other = None if against is None else open_system(against, table, store, columns_of(column), split)
    protocol = check_systems(table, [system, *([other] if other else [])], cv, split=split)
    tell_protocol(protocol, strict)
    asked = Asked(bootstrap, seed, by, calibration or reliability is not None)
    with working("resampling speakers"):
        parts = assess_parts(system, table, asked, against=other, cv=cv, split=split)
    for part, found in parts.items():
        console().print(assessment_report(f"{name} ({part})", found))
    if json_file is not None:
        scores = {part: found.to_dict() | {"protocol": protocol.to_dict()} for part, found in parts.items()}
        text = json.dumps(scores, indent=2, ensure_ascii=False, allow_nan=False)
        replace_text(json_file, text + "\n")
        say(f"wrote {json_file}")
    for part, found in parts.items():
        places = [
            path if path is None or len(parts) == 1 else path.with_stem(f"{path.stem}-{part}")
            for path in (confusion, reliability)
        ]
        for path in write_pictures(f"{name} ({part})", found, *places):
            say(f"wrote {path}")
