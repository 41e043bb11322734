"""One feature set: which of many keys it lacks."""

from pathlib import Path

import numpy as np

from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_store import SPEC


def test_missing_names_each_key_that_is_lacking_in_the_order_asked(tmp_path: Path) -> None:
    spec: FeatureSpec = SPEC
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("a", spec) as writer:
        for key in ("b", "a", "ü"):
            writer.append(key, np.zeros((len(spec.layers), 2, spec.dim), np.float32))
    assert store["a"].missing(["z", "a", "y", "ü", "z"]) == ["z", "y", "z"]
    assert store["a"].missing(key for key in ("a", "b")) == []
    assert store["a"].missing([]) == []
