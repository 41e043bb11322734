"""Results in Markdown: tables of scores, the record of a run, and the card of a model that is handed on."""

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepser.scores.metrics import ScoreRow, Spread
from deepser.scores.report import SHOWN, TITLES, number
from ensemble.prediction.model import Model
from ensemble.prediction.sets import needed_sets
from featurestore.encoders.catalog import ENCODERS
from featurestore.errors import ConfigError

_FRONT = """---
library_name: medusa-ser
pipeline_tag: audio-classification
tags: [speech-emotion-recognition, ensemble]
---"""
_USE = """## Use

```console
medusa predict clip.wav --model {directory}
```

```python
from ensemble import Model

predictions = Model.load("{directory}").predict(["clip.wav"])
print(predictions.labels, predictions.probabilities, predictions.disagreement)
```"""
_COLUMNS = """In a row of predictions `p_<class>` are probabilities, `attr_<attribute>` values on the attribute's scale,
`entropy` the entropy of the probabilities in nats. With several members `sd_<class>` and `sd_attr_<attribute>` are the
standard deviation over the members' own predictions, and `disagreement` is the mutual information of class and member
in nats: 0 where all members say the same, however unsure they are."""
_LIMITS = """## Limits

The scores are those of the corpus it was fitted on; other microphones, languages and kinds of speech will score lower.
Acted or perceived emotion is not what a person feels. The encoders are not in this directory: they are found by name,
or with `--weights NAME=DIR`, and refused when their weights are not those above. Each has a licence of its own."""


def model_card(title: str, directory: str, model: Model, report: Mapping[str, Any] | None) -> str:
    """README.md of an exported model: what it predicts, of what it is made, its scores, and how it is used."""
    parts = [_FRONT, f"# {title}", _about(model), _USE.format(directory=directory), _COLUMNS]
    parts += ["## Made of", _members(model), _encoders(model)]
    if report is not None:
        parts.append(f"## Scores\n\nFitted on {report['fitted_on']} ({report['n_fitted']:,} utterances).")
        for part, rows in score_rows(report).items():
            parts += [f"On {part}:", scores_markdown(rows)]
        parts += [f"Note: {note}" for note in report["notes"]]
    return "\n\n".join([*parts, _LIMITS]) + "\n"


def read_report(path: Path) -> dict[str, Any]:
    """The report.json that `fit-meta` wrote; ConfigError when it isn't one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        score_rows(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no report of `medusa fit-meta` ({type(error).__name__}: {error}).") from None
    return found


def score_rows(report: Mapping[str, Any]) -> dict[str, list[ScoreRow]]:
    """The tables of a report, by the part that was scored."""

    def known(value: float | None) -> float:
        return math.nan if value is None else value

    def by_name(values: Mapping[str, float | None]) -> dict[str, float]:
        return {name: known(value) for name, value in values.items()}

    def spreads(values: Mapping[str, Any]) -> dict[str, Spread]:
        return {
            name: Spread(known(own["mean"]), known(own["std"]), by_name(own["values"])) for name, own in values.items()
        }

    def row_of(row: Mapping[str, Any]) -> ScoreRow:
        return ScoreRow(row["name"], by_name(row["scores"]), spreads(row["folds"]), spreads(row["seeds"]))

    return {part: [row_of(row) for row in rows] for part, rows in report["parts"].items()}


def scores_markdown(rows: Sequence[ScoreRow]) -> str:
    """One line per system, as `scores_table` shows them in a terminal."""
    shown = [score for score in SHOWN if any(score in row.scores for row in rows)]
    by_fold = [score for score in ("macro_f1", "uar") if any(score in row.folds for row in rows)]
    heads = ["system", *(TITLES[score] for score in shown), *(f"{TITLES[score]} by fold" for score in by_fold)]
    lines = []
    for row in rows:
        cells = [number(row.scores.get(score, math.nan)) for score in shown]
        lines.append([row.name, *cells, *(_spread(row.folds.get(score)) for score in by_fold)])
    return table_markdown(heads, lines)


def table_markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    ruler = ["---", *("---:" for _ in heads[1:])]
    lines = [heads, ruler, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """What the numbers were made on and with, without naming the machine."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("medusa-ser", "torch", "transformers"))
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {versions}"


def _about(model: Model) -> str:
    attributes = [f"{name} ({low:g} to {high:g})" for name, (low, high) in model.attribute_ranges.items()]
    text = f"Speech emotion recognition: {', '.join(model.classes)}"
    return text + (f"; {', '.join(attributes)}." if attributes else ".")


def _members(model: Model) -> str:
    rows = []
    for member in model.members:
        config = member.config
        epochs = " + ".join(str(stage.epochs) for stage in config.train.stages)
        network = f"{config.network.kind}, {config.network.d}"
        rows.append([config.name, ", ".join(config.features), network, epochs, str(len(member.weights()))])
    return table_markdown(["member", "features", "network, width", "epochs", "models"], rows)


def _encoders(model: Model) -> str:
    rows = []
    for name, saved in needed_sets(model.members).items():
        spec = saved["spec"]
        entry = ENCODERS.get(spec["encoder"])
        where = entry.hub_id if entry is not None and entry.hub_id else "-"
        layers = ", ".join(layer.removeprefix("layer_") for layer in spec["layers"])
        rows.append([name, spec["encoder"], where, layers, spec["source"] or "audio", spec["weights"]])
    return table_markdown(["features", "encoder", "hub", "layers", "of", "weights"], rows)


def _spread(spread: Spread | None) -> str:
    return "" if spread is None else f"{number(spread.mean)} ± {number(spread.std)}"
