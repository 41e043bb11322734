"""What was done: the corpus, the features, the members, their training, and what each step took."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.system import System
from ensemble.report.runs import CONFIG, MEMBERS, Runs, read_json
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.summary import summary_lines
from featurestore.errors import StoreError
from featurestore.runtime.jsonable import jsonable
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

VERSIONS = ("soundfile", "av", "soxr", "torch", "transformers", "medusa-ser")
SECTIONS = ("featurize", "members", "evaluate")  # of a recipe, whose steps have names


def corpus_lines(manifest: Manifest, path: Path) -> list[list[str]]:
    """Return (name, value) lines of the corpus."""
    return [["manifest", str(path)], *([name, value] for name, value in summary_lines(manifest))]


def feature_rows(store: FeatureStore | None, runs: Runs) -> list[dict[str, Any]]:
    """Return a description of each feature set that a system reads, from the store or else from a member's record."""
    recorded: dict[str, Mapping[str, Any]] = {}
    for directory in runs.directories.values():
        for spec in _list(read_json(directory / CONFIG), "specs"):
            recorded.setdefault(str(spec["name"]), spec)
    rows = []
    for name in sorted(recorded):
        row: dict[str, Any] = {"name": name, "fingerprint": recorded[name]["fingerprint"], "in_store": False}
        spec, provenance = recorded[name]["spec"], recorded[name].get("provenance") or {}
        if store is not None and name in store:
            features = store[name]
            row |= {
                "in_store": True, "fingerprint": features.spec.fingerprint, "n": len(features),
                "decoders": _decoders(features), "bytes": _bytes(features.path),
            }  # fmt: skip
            spec, provenance = features.spec.to_json(), features.provenance
        fields = ("kind", "encoder", "weights", "layers", "dim", "frame_rate_hz", "dtype", "pool", "window", "source")
        row |= {field: spec[field] for field in fields}
        row["versions"] = {package: provenance[package] for package in VERSIONS if package in provenance}
        row["date"], row["command"] = provenance.get("date", ""), provenance.get("command", "")
        row["other"] = row["in_store"] and row["fingerprint"] != recorded[name]["fingerprint"]
        rows.append(row)
    as_json: list[dict[str, Any]] = jsonable(rows)
    return as_json


def _decoders(features: FeatureSet) -> list[str]:
    """Return the decoders that read the audio of a set, [] where that is not recorded."""
    try:
        identities = features.identities(list(features))
    except StoreError:
        return []
    return [name for name in identities.decoders if name]


def system_rows(store: FeatureStore | None, runs: Runs, systems: Sequence[System]) -> list[dict[str, Any]]:
    """Return a description of each system: its kind, its inputs, its protocol and its settings."""
    rows = []
    for system in systems:
        directory = runs.directories.get(system.name)
        config = read_json(directory / CONFIG) if directory is not None else {}
        row: dict[str, Any] = {
            "name": system.name, "kind": "predictions", "reads": [], "folds": system.fold_column,
            "directory": "" if directory is None else str(directory), "fingerprint": "", "settings": "",
            "n": len(system.keys), "notes": list(system.notes),
        }  # fmt: skip
        if system.stored and store is not None:
            spec = store[system.name].spec
            extra = dict(spec.extra)
            row |= {"kind": "posteriors", "fingerprint": spec.fingerprint, "out_of_fold": extra.get("oof", "in-sample")}
        if directory is not None and (directory / MEMBERS).is_file():
            row["kind"] = f"ensemble: {config.get('kind', '')}".rstrip(": ")
            row["reads"] = [str(name).removeprefix(PREFIX) for name in _list(config, "members")]
            row["settings"] = _settings(config.get("config"))
        elif "member" in config:
            member = config["member"]
            assert isinstance(member, dict)
            row["kind"] = f"member: {member['network'].get('kind', '')}"
            row["reads"] = list(member.get("features", ()))
            row["settings"] = _settings(member["network"]) + "; " + _settings(member["train"])
        elif "probe" in config:
            probe = config["probe"]
            assert isinstance(probe, dict)
            row["kind"], row["reads"] = f"probe: {probe.get('solver', '')}", list(probe.get("features", ()))
            row["settings"] = _settings(probe)
        rows.append(row)
    as_json: list[dict[str, Any]] = jsonable(rows)
    return as_json


def _settings(values: object) -> str:
    """Return the plain settings of a mapping as one line."""
    if not isinstance(values, dict):
        return ""
    return ", ".join(
        f"{name} {value}" for name, value in values.items()
        if isinstance(value, str | int | float) and name not in ("name", "kind") and value != ""
    )  # fmt: skip


def training_curves(runs: Runs) -> list[dict[str, Any]]:
    """Return {"system", "folds": {fold: {"loss", "score", "score_name", "stage"}}} of each member with a history."""
    from deepser.watch.curves import read_histories, score_of

    curves = []
    for name, directory in runs.directories.items():
        folds = {}
        for fold, records in read_histories(directory).items():
            scores = [score_of(record) for record in records]
            folds[fold] = {
                "loss": [record["loss"] for record in records],
                "score": [None if score is None else score[1] for score in scores],
                "score_name": next((score[0] for score in scores if score is not None), ""),
                "stage": [str(record["stage"]) for record in records],
                "seconds": sum(float(record.get("seconds") or 0) for record in records),
            }
        if folds:
            curves.append({"system": name, "folds": folds})
    values: list[dict[str, Any]] = jsonable(curves)
    return values


def ensemble_reports(runs: Runs) -> list[dict[str, Any]]:
    """Return the report of `fit-meta` on each ensemble: the table of votes, the learned weights, and its notes."""
    reports = []
    for name, directory in runs.directories.items():
        report = read_json(directory / "report.json")
        if report:
            keys = ("parts", "learned", "notes", "members", "fitted_on", "n_fitted", "in_sample", "held_out")
            reports.append({"system": name, **{key: report.get(key) for key in keys}})
    return reports


def step_rows(runs: Runs, store: FeatureStore | None) -> list[dict[str, Any]]:
    """Return {"name", "seconds", "attempts", "bytes"} of the steps of whole runs, then what the store and runs take.

    seconds is None for what no step record times; those of a member's run directory are of the epochs of all folds.
    """
    rows: list[dict[str, Any]] = []
    for home in runs.whole:
        for path in sorted((home / "steps").glob("*.json"), key=lambda each: each.stat().st_mtime_ns):
            record = read_json(path)
            if "seconds" in record:
                name = path.stem.lstrip("0123456789").lstrip()  # the demo numbers its steps
                section, _, in_section = name.partition(".")
                rows.append({
                    "name": f"{section}/{in_section}" if section in SECTIONS and in_section else name, "bytes": None,
                    "seconds": record["seconds"], "attempts": record.get("attempts", 1),
                })  # fmt: skip
    outputs: list[tuple[str, Path]] = []
    trained_s = {own["system"]: sum(fold["seconds"] for fold in own["folds"].values()) for own in training_curves(runs)}
    if store is not None and not store.files.remote:
        names = {str(spec["name"]) for path in runs.directories.values() for spec in _list(read_json(path / CONFIG),
                                                                                           "specs")}  # fmt: skip
        outputs += [(f"features {name}", store.path / name) for name in sorted(names) if name in store]
        outputs += [(name.replace("/", " ", 1), store.path / name) for name in runs.systems if name in store]
    for label, path in outputs:
        rows.append({"name": label, "seconds": None, "attempts": None, "bytes": _bytes(path)})
    for name, path in runs.directories.items():
        label, seconds = f"run directory {path.name}", trained_s.get(name)
        rows.append({"name": label, "seconds": seconds, "attempts": None, "bytes": _bytes(path)})
    return rows


def _list(values: Mapping[str, object], key: str) -> list[Any]:
    value = values.get(key)
    return value if isinstance(value, list) else []


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
