"""What the README shows runs: its Python is executed against a store that the README's commands would make."""

import re
from pathlib import Path

import numpy as np
import pytest

from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines with one core
def test_its_python_reads_the_store_with_us_with_zarr_with_h5py_and_in_a_training_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = FeatureSpec("audio", "tiny-hubert", "none", ("layer_02", "layer_03"), 4, 50.0)
    stored = np.random.default_rng(0).normal(size=(2, 7, 4)).astype(np.float16)
    store = FeatureStore.create("store")
    for name, format in (("tiny-hubert", "zarr"), ("tiny-wavlm", "hdf5")):
        with store.writer(name, spec, format=format) as writer:
            writer.append("a/b", stored)
    found: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    blocks = [
        block for block in blocks if "from ensemble" not in block
    ]  # tests/ensemble/prediction/test_export.py has that one
    assert len(blocks) == 3
    for block in blocks:
        exec(block, found)
    np.testing.assert_array_equal(np.asarray(found["rows"]), stored[1])
    np.testing.assert_array_equal(np.asarray(found["first"]), stored[0])
    np.testing.assert_array_equal(np.asarray(found["same"]), stored[0])
    np.testing.assert_array_equal(np.asarray(found["values"]), stored)
    np.testing.assert_array_equal(np.asarray(found["padded"])[:, 0], stored)
    assert np.asarray(found["lengths"]).tolist() == [7]


def test_no_result_is_left_to_fill_in() -> None:
    assert "@@" not in README.read_text()
