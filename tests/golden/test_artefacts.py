"""What earlier builds wrote still loads, predicts the same bits and goes on to the same weights.

Bits are those of one machine: elsewhere, with other kernels, predictions agree to float32's rounding.
"""

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deepser.members.folds import plan_folds
from deepser.members.member import Member
from ensemble.fusion.kinds import KINDS
from ensemble.prediction.model import Model
from featurestore import FeatureStore, Manifest
from tests.helpers.fitting import fit_member

GOLDEN = Path(__file__).parent / "a0ddd6b"
MEMBERS = ("deepser", "unimodal", "late", "crossed", "srpol", "baseline")
METAS = ("meta-linear", "meta-logits", "meta-mlp", "meta-vote", "meta-forest")


def machine() -> dict[str, str]:
    """Return what bits depend on, as make.py records it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine(),
            "cpu": models[0] if models else "", "capability": torch.backends.cpu.get_cpu_capability()}  # fmt: skip


SAME_MACHINE = json.loads((GOLDEN / "machine.json").read_text()) == machine()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy, for tests that write."""
    return shutil.copytree(GOLDEN, tmp_path_factory.mktemp("golden") / "a0ddd6b")


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "predictions.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def manifest(made: Path) -> Manifest:
    return Manifest.read(made / "corpus.csv")


@pytest.fixture(scope="module")
def outputs(made: Path, manifest: Manifest) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each member's posteriors and logits of every utterance."""
    store = FeatureStore.open(made / "store")
    return {name: Member.load(made / "runs" / name).predict(store, manifest.keys, device="cpu") for name in MEMBERS}


def same(actual: Any, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    actual = np.asarray(actual)
    assert actual.dtype == expected.dtype
    if SAME_MACHINE:
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_predicts_the_same_bits(
    name: str, outputs: dict[str, tuple[np.ndarray, np.ndarray]], expected: dict[str, np.ndarray]
) -> None:
    same(outputs[name][0], expected[f"{name}/posteriors"])
    same(outputs[name][1], expected[f"{name}/logits"])


@pytest.mark.parametrize("name", MEMBERS)
def test_kept_posteriors_are_read_as_they_were(
    name: str, made: Path, manifest: Manifest, expected: dict[str, np.ndarray]
) -> None:
    features = FeatureStore.open(made / "store")[f"posteriors/{name}"]
    np.testing.assert_array_equal(np.stack([features[key] for key in manifest.keys]), expected[f"{name}/kept"])


@pytest.mark.parametrize("name", METAS)
def test_a_meta_classifier_predicts_the_same_bits(
    name: str, made: Path, outputs: dict[str, tuple[np.ndarray, np.ndarray]], expected: dict[str, np.ndarray]
) -> None:
    model = Model.load(made / "runs" / name)
    assert model.meta is not None
    inputs = np.stack([outputs[m.config.name][model.meta.layer == "logits"] for m in model.members])
    predicted = KINDS[model.meta.kind].predict_values(model.meta, inputs)
    same(predicted.probabilities, expected[f"{name}/probabilities"])
    same(predicted.attributes, expected[f"{name}/attributes"])
    same(predicted.logits, expected[f"{name}/logits"], tolerance=1e-4)


def test_an_export_transcribes_the_same_in_audio(made: Path, expected: dict[str, np.ndarray]) -> None:
    files = sorted((made / "audio").glob("*.wav"))
    predictions = Model.load(made / "export").predict(files, device="cpu")
    same(predictions.probabilities, expected["export/probabilities"])
    same(predictions.member_posteriors, expected["export/members"])


@pytest.mark.parametrize("name", ["half", "between"])
def test_an_interrupted_member_goes_on_to_the_same_weights(name: str, made: Path, manifest: Manifest) -> None:
    store, run = FeatureStore.open(made / "store"), made / "runs" / name
    assert (run / "fold-2" / "checkpoint.safetensors").is_file()
    assert not (run / "fold-2" / "model.safetensors").exists()
    before = (run / "fold-2" / "metrics.jsonl").read_text().splitlines()
    config = Member.load(run).config
    fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), run, device="cpu")
    assert (run / "fold-2" / "metrics.jsonl").read_text().splitlines()[: len(before)] == before
    for fold in ("1", "2"):
        weights = load_file(run / f"fold-{fold}" / "model.safetensors")
        expected_weights = load_file(made / "finished" / name / f"fold-{fold}" / "model.safetensors")
        assert weights.keys() == expected_weights.keys()
        for tensor, value in expected_weights.items():
            same(weights[tensor], value.numpy(), tolerance=1e-3)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_finished_member_is_not_fitted_again(name: str, made: Path, manifest: Manifest) -> None:
    store, run = FeatureStore.open(made / "store"), made / "runs" / name
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    epochs: list[str] = []
    config = Member.load(run).config
    fit_member(
        store, manifest, config, plan_folds(manifest, cv="fold"), run, device="cpu",
        on_epoch=lambda *_: epochs.append(name),
    )  # fmt: skip
    assert not epochs
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
