"""The scores of every layer that probes found, as grids: from files that a user names, and from run directories."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepser.probes.scores_file import FIT, SCORES, fit_of
from ensemble.report.packing import natural
from ensemble.report.runs import read_json
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore

NEEDED = {"name": str, "part": str, "nested": bool, "scores": dict}  # of each system, besides `layers`


def probe_tables(
    paths: Sequence[Path], directories: Mapping[str, Path] | None = None, store: FeatureStore | None = None
) -> list[dict[str, Any]]:
    """Return a grid for each part of the scores in `paths`, then of those that probes keep in run directories.

    directories: by the name of their posteriors. store: where these are. Each grid is {"file", "probe", "score",
    "parts": {part: {"layers", "sets", "values": (sets, layers), "nested": score}}}. ConfigError names a file that is
    missing or damaged, and one in a run directory that belongs to another fit than the model or the posteriors.
    """
    tables = [_table(path, read_json(path)) for path in paths]
    for name, directory in (directories or {}).items():
        path = directory / SCORES
        if path.exists():
            content = read_json(path)
            _check_fit(path, content, name, store)
            table = _table(path, content)
            if not any(table["parts"] == other["parts"] and table["probe"] == other["probe"] for other in tables):
                tables.append(table)
    return tables


def _check_fit(path: Path, content: Mapping[str, object], name: str, store: FeatureStore | None) -> None:
    remedy = f"run the same `medusa probe` again, or remove {path}."
    fit = fit_of(path.parent)
    if content.get(FIT) != fit:
        raise ConfigError(f"{path} holds scores of another fit than the probe beside it; {remedy}")
    if store is not None and name in store and store[name].spec.weights != fit["weights"]:
        raise ConfigError(f"{path} holds scores of another fit than {name} in {store.path}; {remedy}")


def _table(path: Path, content: Mapping[str, object]) -> dict[str, Any]:
    systems = content.get("systems")
    if not isinstance(systems, list) or not systems or not all(map(_is_system, systems)):
        raise ConfigError(f"{path} holds no scores of a probe; give the file that `medusa probe --json` wrote.")
    score = "uar" if any("uar" in each["scores"] for each in systems) else "mean_ccc"
    parts: dict[str, Any] = {}
    for part in dict.fromkeys(each["part"] for each in systems):
        part_systems = [each for each in systems if each["part"] == part]
        single = {
            _set_and_layer(each["name"]): each["scores"].get(score)
            for each in part_systems
            if each["layers"] == 1 and not each["nested"] and "@" in each["name"]
        }
        layers = sorted({layer for _, layer in single}, key=natural)
        sets = list(dict.fromkeys(name for name, _ in single))
        nested = next((each["scores"].get(score) for each in part_systems if each["nested"]), None)
        values = [[single.get((name, layer)) for layer in layers] for name in sets]
        parts[part] = {"layers": layers, "sets": sets, "values": values, "nested": nested}
    probe = content.get("probe")
    name = str(probe.get("name", "")) if isinstance(probe, dict) else ""
    return {"file": str(path), "probe": name, "score": score, "parts": parts}


def _is_system(value: object) -> bool:
    if not isinstance(value, dict) or "layers" not in value:
        return False
    if not all(isinstance(value.get(name), kind) for name, kind in NEEDED.items()):
        return False
    scores = [score for score in value["scores"].values() if score is not None]
    return all(isinstance(score, int | float) and math.isfinite(score) for score in scores)


def _set_and_layer(name: str) -> tuple[str, str]:
    """Return ("wavlm-large, speaker-adapted", "12") of "wavlm-large@12, speaker-adapted"."""
    features, _, rest = name.rpartition("@")
    layer, comma, adapted = rest.partition(",")
    return features + comma + adapted, layer
