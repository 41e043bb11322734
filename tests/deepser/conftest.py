"""A member that is fitted once for all tests of this package; each test works on a copy."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from deepser.members.folds import FoldPlan, plan_folds
from deepser.members.member import Member
from featurestore.corpus.manifest import Manifest
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member
from tests.helpers.made_once import made_once
from tests.helpers.synthetic_corpus import corpus, member


@dataclass(frozen=True)
class Fitted:
    """`member()` of the synthetic corpus by its folds: its run directory, and the store with its posteriors."""

    store: FeatureStore
    manifest: Manifest
    plan: FoldPlan
    directory: Path

    def load(self) -> Member:
        return Member.load(self.directory)


@pytest.fixture(scope="session")
def _fitted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "fitted", _fit)


def _fit(directory: Path) -> None:
    store, manifest = corpus(directory)
    fit_member(store, manifest, member(), plan_folds(manifest, cv="fold"), directory / "m")
    manifest.write(directory / "m.csv")


@pytest.fixture
def fitted(_fitted_once: Path, tmp_path: Path) -> Fitted:
    """Return a copy: `tmp_path` holds store, m.csv and the run directory m."""
    shutil.copytree(_fitted_once, tmp_path, dirs_exist_ok=True)
    manifest = Manifest.read(tmp_path / "m.csv")
    return Fitted(FeatureStore.open(tmp_path / "store"), manifest, plan_folds(manifest, cv="fold"), tmp_path / "m")
