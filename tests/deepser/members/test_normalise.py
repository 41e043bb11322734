"""A member that reads rows normalised by speaker: what it records, resumes and predicts; no judged label counts."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deepser.config import MemberConfig
from deepser.members.fit import fit_members
from deepser.members.folds import plan_folds
from deepser.members.member import Member
from deepser.members.posteriors import ADAPTED
from deepser.training.processes import World
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member
from tests.helpers.synthetic_corpus import corpus, member

SPEAKER = member("adapted", normalise="speaker")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus, and a member fitted over its folds."""
    directory = tmp_path_factory.mktemp("adapted")
    store, manifest = corpus(directory)
    fit_member(store, manifest, SPEAKER, plan_folds(manifest, cv="fold"), directory / "run", device="cpu")
    manifest.write(directory / "m.csv")
    return directory


def opened(directory: Path) -> tuple[FeatureStore, Manifest]:
    return FeatureStore.open(directory / "store"), Manifest.read(directory / "m.csv")


def weights_of(run: Path, fold: str) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in load_file(run / f"fold-{fold}" / "model.safetensors").items()}


def test_labels_of_a_fold_change_nothing_that_its_model_learns_or_predicts(made: Path, tmp_path: Path) -> None:
    store, manifest = opened(made)
    frame = manifest.to_arrow().to_pandas()
    rows = np.flatnonzero(frame["fold"] == "1")
    columns = [name for name in frame.columns if name.startswith(("vote_", "attr_"))]
    frame.loc[rows, columns] = frame.loc[np.random.default_rng(3).permutation(rows), columns].to_numpy()
    relabelled = Manifest.from_pandas(frame)
    into = FeatureStore.create(tmp_path / "store")
    fit_member(store, relabelled, SPEAKER, plan_folds(relabelled, cv="fold"), tmp_path / "run", device="cpu", into=into)
    before, after = weights_of(made / "run", "1"), weights_of(tmp_path / "run", "1")
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    keys = [manifest.keys[i] for i in rows]
    result = [opened_store["posteriors/adapted"] for opened_store in (store, into)]
    np.testing.assert_array_equal(*(np.stack([each[key] for key in keys]) for each in result))
    assert not np.array_equal(weights_of(made / "run", "2")["head.classes.weight"],
                              weights_of(tmp_path / "run", "2")["head.classes.weight"])  # fmt: skip


def test_run_weights_and_posteriors_record_it(made: Path) -> None:
    store, manifest = opened(made)
    loaded = Member.load(made / "run")
    assert loaded.speaker_adapted
    assert ADAPTED in store["posteriors/adapted"].spec.extra
    assert weights_of(made / "run", "0")["normalisation/first/layer_01/mean"].shape == (6,)
    assert (made / "run" / "normalisation.safetensors").is_file()
    plain = fit_member(store, manifest, member("plain"), plan_folds(manifest, cv="fold"), made / "plain", device="cpu")
    assert not plain.speaker_adapted
    assert ADAPTED not in store["posteriors/plain"].spec.extra
    assert not any(name.startswith("normalisation") for name in weights_of(made / "plain", "0"))


def test_predict_normalises_by_the_clips_it_is_given(made: Path) -> None:
    """All clips of a speaker at once: as in training. Without a speaker, or one clip alone: the corpus's statistics."""
    store, manifest = opened(made)
    loaded, keys = Member.load(made / "run"), manifest.keys
    by_speaker, _ = loaded.predict(store, keys, device="cpu", speakers=manifest.column("speaker").tolist())
    unknown, _ = loaded.predict(store, keys, device="cpu")
    single, _ = loaded.predict(store, keys[:1], device="cpu", speakers=["s0"])
    assert not np.allclose(by_speaker, unknown, atol=1e-3)
    np.testing.assert_allclose(single[0], unknown[0], atol=1e-5)


def test_a_run_goes_on_only_with_the_same_speakers(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy")
    store, manifest = opened(tmp_path / "copy")
    plan, run = plan_folds(manifest, cv="fold"), tmp_path / "copy" / "run"
    (run / "fold-1" / "model.safetensors").unlink()
    fit_member(store, manifest, SPEAKER, plan, run, device="cpu")
    for name, value in weights_of(made / "run", "1").items():
        np.testing.assert_array_equal(weights_of(run, "1")[name], value)
    frame = manifest.to_arrow().to_pandas()
    moved = Manifest.from_pandas(frame.assign(speaker=["s3", *frame["speaker"][1:]]))
    with pytest.raises(ConfigError, match="normalisation"):
        fit_member(store, moved, SPEAKER, plan, run, device="cpu")
    with pytest.raises(ConfigError, match="adapted=speaker"):
        fit_member(store, manifest, member("adapted"), plan, run, device="cpu")


@pytest.mark.slow
def test_members_that_are_normalised_otherwise_do_not_share_rows(made: Path, tmp_path: Path) -> None:
    store, manifest = opened(made)
    members: list[MemberConfig] = [replace(SPEAKER, name="adapted"), member("plain2"), member("c", normalise="corpus")]
    places = [tmp_path / config.name for config in members]
    into = FeatureStore.create(tmp_path / "store")
    world = World(device=torch.device("cpu"))
    fit_members(store, manifest, members, plan_folds(manifest, cv="fold"), places, world=world, into=into)
    for fold in "012":
        for name, value in weights_of(made / "run", fold).items():
            np.testing.assert_array_equal(weights_of(tmp_path / "adapted", fold)[name], value)
