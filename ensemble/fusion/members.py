"""Members by name: which posteriors in a store are a member's, and where the run directories are that made them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from deepser.probes.any_member import load_member
from ensemble.evaluation.align import PREFIX
from ensemble.fusion.fit import MADE_BY
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text, writing
from featurestore.runtime.json_text import read_json
from featurestore.store.feature_store import FeatureStore

MEMBERS_FILE = "members.json"


def find_members(store: FeatureStore, keys: Sequence[str] | None = None) -> list[str]:
    """Return the posteriors in a store that an ensemble may be made of: all but those that a meta-classifier made.

    keys: of the manifest; ConfigError where some of the members are of none of them, so that they must be named.
    """
    names = [name for name in store.names() if store[name].spec.kind == "posteriors"]
    members = [name for name in names if store[name].provenance.get("made_by") != MADE_BY]
    if keys is not None:
        _check_one_corpus(store, members, keys)
    if not members:
        raise ConfigError(f"Store {store.path} holds no member's posteriors; run `medusa probe` or fit-deepser first.")
    return members


def _check_one_corpus(store: FeatureStore, members: Sequence[str], keys: Sequence[str]) -> None:
    of_others = [name for name in members if len(store[name].missing(keys)) == len(keys)]
    of_corpus = [name for name in members if name not in of_others]
    if of_others and of_corpus:
        raise ConfigError(
            f"Store {store.path} holds posteriors of other utterances alone: {', '.join(of_others)}. They are of "
            f"another corpus; name the members: --members {','.join(name.removeprefix(PREFIX) for name in of_corpus)}"
        )


def record_members(directory: Path, store: FeatureStore, members: Sequence[str], runs: Path) -> list[str]:
    """Write into a meta-classifier's `directory` where its members' run directories are, relative to it.

    members: feature sets, e.g. "posteriors/m01", whose run directory is runs/m01. Returns those for which no run
    directory there made the posteriors in the store: the meta-classifier stands, but can't predict new files.
    """
    records, unknown = {}, []
    for name in members:
        run = runs / name.removeprefix(PREFIX)
        try:
            digest = load_member(run).weights_digest
        except ConfigError:
            digest = ""
        if digest == store[name].spec.weights:
            records[name] = {"run": os.path.relpath(run, directory), "weights": digest}
        else:
            unknown.append(name)
    text = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    with writing(directory / MEMBERS_FILE, ConfigError):
        replace_text(directory / MEMBERS_FILE, text)
    return unknown


def read_runs(directory: Path) -> dict[str, tuple[str, str]]:
    """Return members' run directories, relative to `directory`, and the digests of their weights."""
    path = directory / MEMBERS_FILE
    try:
        saved = read_json(path.read_text(encoding="utf-8"))
        return {name: (str(run["run"]), str(run["weights"])) for name, run in saved.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged ({type(error).__name__}: {error}); run `medusa fit-meta` again."
        ) from error
