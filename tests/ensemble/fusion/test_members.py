"""Members that are not named are found in the store, unless some are of another corpus."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble.fusion.members import find_members
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa


@pytest.fixture
def two_corpora(store: FeatureStore, write: Callable, corpus) -> FeatureStore:
    """Four members of one corpus, and a member of another."""
    write(corpus)
    spec = FeatureSpec("posteriors", "x", "none", ("posteriors", "logits"), 2, columns=("a", "b"))
    with store.writer("posteriors/stranger", spec) as writer:
        writer.append("elsewhere", np.ones((2, 1, 2), np.float32))
    return store


@pytest.mark.parametrize("command", ["fit-meta", "compare"])
def test_in_a_store_of_two_corpora_members_must_be_named_and_the_error_names_them(
    command: str, two_corpora: FeatureStore, corpus, tmp_path: Path
) -> None:
    corpus.manifest.write(tmp_path / "m.csv")
    error = medusa(command, "-m", tmp_path / "m.csv", "-s", two_corpora.path, "--cv", "fold", exit_code=2).stderr
    assert "posteriors/stranger" in error
    assert "--members m0,m1,m2,m3" in " ".join(error.split())


def test_a_corpus_alone_in_its_store_needs_no_names(store: FeatureStore, write: Callable, corpus) -> None:
    write(corpus)
    assert find_members(store, corpus.manifest.keys) == [f"posteriors/m{i}" for i in range(4)]
    with pytest.raises(ConfigError, match="holds no member"):
        find_members(FeatureStore.create(store.path.parent / "empty"))
