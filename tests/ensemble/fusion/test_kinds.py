"""Every kind of meta-classifier: what 0.1.0's first build saved still predicts the same; mixed-up files are named.

`golden/KIND` was saved by commit a0ddd6b, fitted on 60 made-up utterances; `predictions.npz` has its inputs, `values`
(M, N, C + A), and what that build predicted from them. These files are never written again.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ensemble.evaluation.align import Aligned, column_names
from ensemble.fusion.kinds import KINDS, load_meta, predict_meta, save_meta
from ensemble.fusion.linear import predict_linear
from ensemble.fusion.state import RIDGE
from featurestore.errors import AlignmentError, ConfigError

GOLDEN = Path(__file__).parent / "golden"
SAVED = {
    "linear-seeds": "meta", "linear": "meta", "mlp": "mlp", "forest": "forest",
    "majority": "vote", "weighted": "vote", "attributes": "vote",
}  # fmt: skip
CLASSES = ("angry", "sad", "happy", "neutral")


@pytest.fixture(scope="module")
def predictions() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "predictions.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def aligned(predictions: dict[str, np.ndarray]) -> Aligned:
    keys = tuple(map(str, range(predictions["values"].shape[1])))
    members = tuple(f"posteriors/m{m}" for m in range(3))
    return Aligned(members, keys, column_names(CLASSES, ("arousal",)), predictions["values"], ("fold",) * 3)


@pytest.mark.parametrize("name", SAVED)
def test_what_an_older_build_saved_predicts_the_same(
    name: str, aligned: Aligned, predictions: dict[str, np.ndarray]
) -> None:
    meta = load_meta(GOLDEN / name)
    assert (meta.kind, meta.members, meta.classes) == (SAVED[name], aligned.members, CLASSES)
    result = predict_meta(meta, aligned)
    for output in ("probabilities", "attributes", "logits"):
        np.testing.assert_allclose(getattr(result, output), predictions[f"{name}.{output}"], rtol=1e-5, atol=1e-6)
    if name == "linear-seeds":
        second = predict_linear(meta, aligned.values, 1)
        np.testing.assert_allclose(second.logits, predictions["linear-seeds.1"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SAVED)
def test_saving_what_was_loaded_gives_the_same_files(name: str, tmp_path: Path) -> None:
    save_meta(tmp_path, load_meta(GOLDEN / name))
    assert (tmp_path / "model.safetensors").read_bytes() == (GOLDEN / name / "model.safetensors").read_bytes()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved.pop("weights").startswith("sha256:")  # that build recorded none
    assert saved == json.loads((GOLDEN / name / "config.json").read_text())


def test_weights_of_one_fit_beside_the_config_of_another_are_refused(tmp_path: Path) -> None:
    """What a kill between the two files leaves, or two runs in one directory."""
    meta = load_meta(GOLDEN / "weighted")
    save_meta(tmp_path / "own", meta)
    save_meta(tmp_path / "other", dataclasses.replace(meta, tensors={"weights": meta.tensors["weights"].flip(0)}))
    shutil.copyfile(tmp_path / "other" / "model.safetensors", tmp_path / "own" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"own/model\.safetensors .*config\.json.*fit-meta"):
        load_meta(tmp_path / "own")


def test_the_older_build_saved_every_kind() -> None:
    assert set(SAVED.values()) == set(KINDS) - {RIDGE}  # which came later


@pytest.mark.parametrize(("name", "kind"), [("mlp", "meta"), ("linear", "mlp"), ("forest", "vote"), ("mlp", "forest")])
def test_a_directory_whose_files_are_of_two_kinds_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "run")
    config = tmp_path / "run" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"kind": kind}))
    with pytest.raises(ConfigError) as error:
        load_meta(tmp_path / "run")
    assert str(tmp_path / "run") in str(error.value)


@pytest.mark.parametrize("name", ["linear", "vote"])
def test_other_members_are_listed_as_missing_and_surplus(name: str, aligned: Aligned) -> None:
    meta = load_meta(GOLDEN / {"vote": "weighted"}.get(name, name))
    other_members = Aligned(("posteriors/x", *aligned.members[1:]), *[
        getattr(aligned, field) for field in ("keys", "columns", "values", "out_of_fold")
    ])  # fmt: skip
    with pytest.raises(AlignmentError) as error:
        predict_meta(meta, other_members)
    assert list(error.value.missing.values()) == [["posteriors/m0"]]
    assert list(error.value.surplus.values()) == [["posteriors/x"]]
