"""What README and docs/ show runs: their Python is executed against a store that their commands would make."""

import re
from pathlib import Path

import numpy as np
import pytest

from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

REPO = Path(__file__).resolve().parents[1]
README = REPO / "README.md"
PAGES = [README, *sorted((REPO / "docs").glob("*.md"))]


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
    result: dict[str, object] = {}
    pages = (README, REPO / "docs" / "store.md", REPO / "docs" / "training-loop.md")
    blocks = [block for page in pages for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    assert len(blocks) == 4
    for block in blocks:
        exec(block, result)
    np.testing.assert_array_equal(np.asarray(result["rows"]), stored[1])
    np.testing.assert_array_equal(np.asarray(result["first"]), stored[0])
    np.testing.assert_array_equal(np.asarray(result["same"]), stored[0])
    np.testing.assert_array_equal(np.asarray(result["values"]), stored)
    np.testing.assert_array_equal(np.asarray(result["padded"])[:, 0], stored)
    assert np.asarray(result["lengths"]).tolist() == [7]


def test_no_python_stands_in_a_page_whose_examples_are_not_run() -> None:
    tested_elsewhere = {
        "predict.md",
        "tutorial.md",
        "tutorial-recording.md",
    }  # prediction/test_export.py, test_tutorials.py
    run = {"README.md", "store.md", "training-loop.md"} | tested_elsewhere
    assert {page.name for page in PAGES if "```python" in page.read_text()} == run


def test_no_result_is_left_to_fill_in() -> None:
    assert not [page.name for page in PAGES if "@@" in page.read_text()]


def test_the_readme_is_a_page() -> None:
    assert len(README.read_bytes()) <= 8192
