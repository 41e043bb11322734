"""Members and meta-classifiers that predict: trained once for all tests, each module works on a copy."""

from pathlib import Path

import pytest

from tests.helpers.made_once import copy_of, made_once
from tests.helpers.small_models import Trained, load_trained, train


@pytest.fixture(scope="module")
def trained(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    made = made_once(tmp_path_factory, "trained", lambda directory: train(demo_corpus, directory))
    return load_trained(copy_of(made, tmp_path_factory))
