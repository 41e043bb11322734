"""The card of a model that is handed on: what it predicts, of what it is made, its scores, its limits."""

from collections.abc import Mapping
from typing import Any

from deepser.probes.member import ProbeMember
from ensemble.evaluation.markdown import protocol_lines, score_rows, scores_markdown, table_markdown
from ensemble.prediction.model import Model
from ensemble.prediction.sets import needed_sets
from featurestore.encoders.catalog import ENCODERS

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
in nats: 0 where all members say the same, however unsure they are. Of windows and segments
`start_s` and `end_s` (seconds) follow the file."""
_LIMITS = """## Limits

The scores are those of the corpus it was fitted on; other microphones, languages and kinds of speech will score lower.
Acted or perceived emotion is not what a person feels. The encoders are not in this directory: they are found by name,
or with `--weights NAME=DIR`, and refused when their weights are not those above. Each has a licence of its own."""


def model_card(title: str, directory: str, model: Model, report: Mapping[str, Any] | None) -> str:
    """Return README.md of an exported model: its outputs, its parts, its scores, and its use."""
    parts = [_FRONT, f"# {title}", _about(model), _USE.format(directory=directory), _COLUMNS]
    parts += ["## Made of", _members(model), _encoders(model)]
    if report is not None:
        parts.append(f"## Scores\n\nFitted on {report['fitted_on']} ({report['n_fitted']:,} utterances).")
        for part, rows in score_rows(report).items():
            parts += [f"On {part}:", scores_markdown(rows)]
        parts += protocol_lines(report) + [f"Note: {note}" for note in report["notes"]]
    return "\n\n".join([*parts, _LIMITS]) + "\n"


def _about(model: Model) -> str:
    attributes = [f"{name} ({low:g} to {high:g})" for name, (low, high) in model.attribute_ranges.items()]
    text = f"Speech emotion recognition: {', '.join(model.classes)}"
    text += f"; {', '.join(attributes)}." if attributes else "."
    if model.speaker_adapted:
        text += (
            " It is speaker-adapted: a clip is read beside the other clips of its speaker, whom "
            "`medusa predict --speaker-of` names; the scores below are so, too."
        )
    return text


def _members(model: Model) -> str:
    rows = []
    for member in model.members:
        name, n = member.config.name, str(len(member.weights()))
        if isinstance(member, ProbeMember):
            kind = "speaker-adapted probe" if member.speaker_adapted else "probe"
            rows.append([name, ", ".join(map(str, member.refs)), kind, "-", n])
            continue
        epochs = " + ".join(str(stage.epochs) for stage in member.config.train.stages)
        network = f"{member.config.network.kind}, {member.config.network.d}"
        network += ", speaker-adapted" if member.speaker_adapted else ""
        rows.append([name, ", ".join(member.config.features), network, epochs, n])
    return table_markdown(["member", "features", "network, width", "epochs", "models"], rows)


def _encoders(model: Model) -> str:
    rows = []
    for name, saved in needed_sets(model.members).items():
        spec = saved["spec"]
        entry = ENCODERS.get(spec["encoder"])
        hub_id = entry.hub_id if entry is not None and entry.hub_id else "-"
        layers = ", ".join(layer.removeprefix("layer_") for layer in spec["layers"])
        rows.append([name, spec["encoder"], hub_id, layers, spec["source"] or "audio", spec["weights"]])
    return table_markdown(["features", "encoder", "hub", "layers", "of", "weights"], rows)
