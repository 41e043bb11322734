"""A fitted model as one directory that can be handed on: members, fusion, label scheme, encoder names, scores, card.

    README.md             the model card
    config.json, model.safetensors, report.json    the meta-classifier and its scores (of one member: its own)
    members.json, members/<name>/                  the members, each config.json and fold-*/model.safetensors
    scheme.json           classes, attributes and their ranges
    encoders.json         the feature sets that are read: encoder, hub name, layers, weights' identity

No path of this machine is in it, and no weights in another form than safetensors. `Model.load` reads it as it is.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepser.probes.any_member import AnyMember
from ensemble.evaluation.markdown import read_report
from ensemble.fusion.kinds import CONFIG, WEIGHTS
from ensemble.fusion.members import MEMBERS_FILE
from ensemble.prediction.card import model_card
from ensemble.prediction.model import ENCODER_NAMES, Model
from ensemble.prediction.sets import needed_sets
from featurestore.corpus.label_scheme import LabelScheme
from featurestore.encoders.catalog import ENCODERS
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_directory, temporary_beside, writing
from featurestore.runtime.json_text import read_json

REPORT, CARD, SCHEME = "report.json", "README.md", "scheme.json"
# Of a feature set's provenance; the rest, its command and where its weights were, describes the machine.
KEPT_PROVENANCE = ("date", "python", "transcripts", "medusa-ser", "torch", "transformers", "numpy", "soundfile", "soxr")


def export_model(
    source: Path | str,
    target: Path | str,
    *,
    title: str = "",
    scheme: LabelScheme | None = None,
    overwrite: bool = False,
) -> Model:
    """Copy what `Model.load(source)` reads into `target`, whole or not at all, and return it as read from there.

    title: of the card, the directory's name by default. scheme: the corpus's, which also records what its labels
    became; its classes and attributes, and their scales, must be the model's. ConfigError when something is at `target`
    already, unless it is an earlier export and `overwrite` is set.
    """
    source, target = Path(source), Path(target)
    model = Model.load(source)
    scheme = _checked_scheme(model, scheme)
    _check_free(target, overwrite)
    work = temporary_beside(target)
    with writing(target, ConfigError):
        work.mkdir(parents=True)
        try:
            report = None
            if model.meta is None:
                _copy_member(model.members[0], work)
            else:
                report = _copy_ensemble(model, source, work)
            _write(work / SCHEME, scheme.to_json())
            _write(work / ENCODER_NAMES, _json(_encoders(model)))
            _write(work / CARD, model_card(title or target.absolute().name, target.absolute().name, model, report))
            replace_directory(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Model.load(target)


def _checked_scheme(model: Model, scheme: LabelScheme | None) -> LabelScheme:
    model_scheme = LabelScheme(model.classes, model.attribute_ranges)
    if scheme is None:
        return model_scheme
    if set(scheme.classes) != set(model_scheme.classes) or not set(model_scheme.attributes) <= set(scheme.attributes):
        raise ConfigError(
            f"The manifest's scheme has {', '.join((*scheme.classes, *scheme.attributes))}, the model predicts "
            f"{', '.join((*model_scheme.classes, *model_scheme.attributes))}; give the manifest that it was fitted on."
        )
    for name, ends in model_scheme.attributes.items():
        if tuple(scheme.attributes[name]) != tuple(ends):
            theirs, ours = ("{:g} to {:g}".format(*each) for each in (scheme.attributes[name], ends))
            raise ConfigError(
                f"The manifest's scheme has {name} from {theirs}, the model predicts it from {ours}; give the manifest "
                "that it was fitted on, or none."
            )
    return LabelScheme(model_scheme.classes, model_scheme.attributes, scheme.corpus_labels)


def _check_free(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / ENCODER_NAMES).is_file():
        raise ConfigError(f"{target} is there already, and no export; choose another directory.")
    if not overwrite:
        raise ConfigError(f"{target} is an export already; choose another directory, or replace it with --overwrite.")


def _copy_ensemble(model: Model, source: Path, target: Path) -> Mapping[str, Any] | None:
    """Fit the meta-classifier and its members, and return its report."""
    assert model.meta is not None
    runs = {}
    for name, member in zip(model.meta.members, model.members, strict=True):
        place = f"members/{member.config.name}"
        _copy_member(member, target / place)
        runs[name] = {"run": place, "weights": member.weights_digest}
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(source / name, target / name)
    _write(target / MEMBERS_FILE, _json(runs))
    if not (source / REPORT).is_file():
        return None
    shutil.copyfile(source / REPORT, target / REPORT)
    return read_report(source / REPORT)


def _copy_member(member: AnyMember, target: Path) -> None:
    """Copy a member's config, without what it records of this machine, and its weights."""
    target.mkdir(parents=True, exist_ok=True)
    saved = read_json((member.directory / "config.json").read_text(encoding="utf-8"))
    for each in saved["specs"]:
        provenance = each.get("provenance") or {}
        each["provenance"] = {name: provenance[name] for name in KEPT_PROVENANCE if name in provenance}
    _write(target / "config.json", _json(saved))
    for path in member.weights():
        place = target / path.parent.name
        place.mkdir()
        shutil.copyfile(path, place / path.name)


def _encoders(model: Model) -> dict[str, Any]:
    encoders = {}
    for name, saved in needed_sets(model.members).items():
        spec = saved["spec"]
        entry = ENCODERS.get(spec["encoder"])
        fields = {key: spec[key] for key in ("encoder", "kind", "layers", "dim", "pool", "window", "source", "weights")}
        hub = {"hub": entry.hub_id} if entry is not None and entry.hub_id else {}
        encoders[name] = fields | hub | {"fingerprint": saved["fingerprint"]}
    return encoders


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
