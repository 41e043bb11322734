"""What can't be stored is said before the work, not after it: stores and run directories that may not be written."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from featurestore.corpus.manifest import Manifest
from featurestore.format.spec import FeatureSpec
from featurestore.interchange.exporting import export_features
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import FAST, medusa
from tests.helpers.warm_python import run_warm

REPO = Path(__file__).resolve().parents[3]
WORK = {  # what must not begin, by command
    "featurize": "featurestore.featurize.run.iter_encode",
    "fit-deepser": "deepser.training.train.train",
    "probe": "ensemble.commands.probe.bar",
    "fit-meta": "ensemble.fusion.fit.cross_fit",
    "import": "featurestore.interchange.importing._append_all",
}
RUN = """
    import sys
    from pathlib import Path
    from unittest.mock import patch

    from tests.helpers.privileges import drop_override
    from tests.helpers.small_corpus import medusa

    work, locked, *arguments = sys.argv[1:]
    paths = [Path(locked), *Path(locked).rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if drop_override():
            with patch(work, side_effect=AssertionError("the work began")):
                print(medusa(*arguments, exit_code=2).stderr)
    finally:
        for path in paths:
            path.chmod(0o755)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of four speakers, their features, and a member over two folds."""
    root = tmp_path_factory.mktemp("locked")
    rng = np.random.default_rng(0)
    store = FeatureStore.create(root / "store")
    with store.writer("f", FeatureSpec("audio", "f", "none", ("layer_01",), 4, 50.0)) as writer:
        for i in range(12):
            writer.append(f"u{i}", rng.normal(size=(1, 5, 4)).astype(np.float32))
            soundfile.write(root / f"u{i}.wav", rng.normal(size=1600) / 10, 16_000)
    frame = pd.DataFrame({"utterance_id": [f"u{i}" for i in range(12)], "path": [f"u{i}.wav" for i in range(12)]})
    frame["label"] = ["sad", "angry"] * 6
    frame["speaker"], frame["fold"] = [f"s{i // 3}" for i in range(12)], [str(i // 6) for i in range(12)]
    Manifest.from_pandas(frame, root=root).write(root / "m.csv")
    options = ("-m", root / "m.csv", "-s", root / "store", "--runs", root / "runs", "--cv", "fold")
    medusa("fit-deepser", *options, "--features", "f", "--network", "unimodal", "--name", "a", *FAST, "--device", "cpu")
    export_features(store["f"], "npy", root / "npy")
    return root


def commands(root: Path) -> dict[str, list[str]]:
    place = ["-m", f"{root}/m.csv", "-s", f"{root}/store"]
    fold = [*place, "--runs", f"{root}/runs", "--cv", "fold"]
    return {
        "featurize": ["featurize", "--encoder", "logmel", *place],
        "fit-deepser": ["fit-deepser", *fold, "--features", "f", "--network", "unimodal", "--name", "b", *FAST],
        "probe": ["probe", *fold, "--features", "f", "--device", "cpu"],
        "fit-meta": ["fit-meta", *fold, "--members", "a"],
        "import": ["store", "import", "npy", f"{root}/npy", "imported", "-s", f"{root}/store"],
    }


def refused(corpus: Path, command: str, locked: Path) -> str:
    process = run_warm(textwrap.dedent(RUN), WORK[command], locked, *commands(corpus)[command], cwd=REPO)
    assert process.returncode == 0, process.stderr
    if not process.stdout:
        pytest.skip("modes don't bind this user")
    return process.stdout


@pytest.mark.parametrize("command", WORK)
def test_a_store_that_cannot_be_written_is_named_before_any_work(corpus: Path, command: str) -> None:
    error = refused(corpus, command, corpus / "store")
    assert f"{corpus}/store" in error
    assert "Permission denied" in error


@pytest.mark.parametrize("command", ["fit-deepser", "probe", "fit-meta"])
def test_run_directories_that_cannot_be_written_are_named_before_any_work(corpus: Path, command: str) -> None:
    error = refused(corpus, command, corpus / "runs")
    assert f"{corpus}/runs" in error
    assert "Permission denied" in error


def test_what_is_there_already_needs_no_writing(corpus: Path, tmp_path: Path) -> None:
    place = ["-m", f"{corpus}/m.csv", "-s", str(tmp_path / "s")]
    medusa("featurize", "--encoder", "logmel", *place)
    code = textwrap.dedent(RUN).replace("exit_code=2).stderr", "exit_code=0).stdout")
    code = code.replace('with patch(work, side_effect=AssertionError("the work began")):', "if work:")
    arguments = ["none", tmp_path / "s", "featurize", "--encoder", "logmel", *place]
    process = run_warm(code, *arguments, cwd=REPO)
    assert process.returncode == 0, process.stderr
    if process.stdout:
        assert "12 there already" in process.stdout
