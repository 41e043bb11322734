"""`medusa evaluate`: scores of posteriors."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from featurestore.terminal import CvOption, ManifestOption, StoreOption, console, reads, say, writes


def evaluate(
    name: Annotated[str, Argument(help="A member or an ensemble in the store: m01, meta.")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    cv: CvOption = None,
    split: Annotated[str | None, reads("This split alone.")] = None,
    json_file: Annotated[Path | None, writes("Write the scores.", "--json")] = None,
    confusion: Annotated[Path | None, writes("Draw the confusion matrix (.png).")] = None,
) -> None:
    """Score posteriors in the store: macro-F1, accuracy, UAR, CCC, classes, confusion, spread over folds.

    Example: `medusa evaluate meta -m corpus.csv --confusion confusion.png`
    """
    import json

    from deepser.metrics import jsonable
    from deepser.report import confusion_png, evaluation_report
    from ensemble.parts import evaluate_parts
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

    parts = evaluate_parts(FeatureStore.open(store), Manifest.read(manifest), name, cv=cv, split=split)
    for part, evaluation in parts.items():
        console().print(evaluation_report(f"{name} ({part})", evaluation))
    if json_file is not None:
        scores = jsonable({part: evaluation.to_dict() for part, evaluation in parts.items()})
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        say(f"wrote {json_file}")
    if confusion is not None:
        for part, evaluation in parts.items():
            path = confusion if len(parts) == 1 else confusion.with_stem(f"{confusion.stem}-{part}")
            confusion_png(evaluation.classification, path, f"{name} ({part})")
            say(f"wrote {path}")
