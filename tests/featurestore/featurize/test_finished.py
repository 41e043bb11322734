"""A set that has every utterance is found out without loading its encoder, and compared with today's audio as ever."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load, load_encoder
from featurestore.encoders.load import described, load_with
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import IdentityMismatch
from featurestore.featurize.finished import finished
from featurestore.featurize.job import FeaturizeJob, FeaturizeOptions, jobs_of
from featurestore.featurize.run import FeaturizeReport, featurize
from featurestore.store.feature_store import FeatureStore

OPTIONS = EncoderOptions("tiny-hubert", layers="1")


def corpus(directory: Path, seed: int, keys: tuple[str, ...] = ("a", "b")) -> Manifest:
    directory.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for i, key in enumerate(keys):
        soundfile.write(directory / f"{key}.wav", 0.1 * rng.standard_normal(8000 + 800 * i), 16_000)
    return Manifest(pa.table({"utterance_id": keys, "path": [f"{key}.wav" for key in keys]}), root=directory)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, FeatureStore]:
    directory = tmp_path_factory.mktemp("finished")
    manifest, store = corpus(directory / "audio", 0), FeatureStore.create(directory / "store")
    encoder = load_encoder("tiny-hubert", layers="1", device="cpu")
    assert featurize(manifest, encoder, store, "tiny-hubert").done == 2
    return manifest, store


def ask(manifest: Manifest, store: FeatureStore, options: EncoderOptions = OPTIONS) -> FeaturizeReport | None:
    (job,) = jobs_of(manifest, store, options, name="tiny-hubert")
    return finished(manifest, store, job, options, "cpu")


def test_nothing_is_loaded_where_nothing_is_left(
    made: tuple[Manifest, FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", lambda *arguments, **options: pytest.fail("the encoder was loaded"))
    report = ask(*made)
    assert report is not None
    assert (report.skipped, report.done, report.n_unrecorded) == (2, 0, 0)


@pytest.mark.parametrize(
    "options",
    [
        EncoderOptions("tiny-hubert", layers="2"),
        EncoderOptions("tiny-hubert", layers="1", dtype="float32"),
        EncoderOptions("tiny-hubert", layers="1", window="10s+1s"),
        EncoderOptions("tiny-wavlm", layers="1"),
        EncoderOptions("tiny-hubert", layers="1", compute="bfloat16"),
    ],
    ids=["layer", "dtype", "window", "encoder", "compute"],
)
def test_other_features_are_left_to_whoever_loads_the_encoder(
    made: tuple[Manifest, FeatureStore], options: EncoderOptions
) -> None:
    assert ask(*made, options) is None


def test_an_utterance_that_is_lacking_is_to_be_encoded(made: tuple[Manifest, FeatureStore]) -> None:
    manifest, store = made
    grown = Manifest(pa.table({"utterance_id": ["a", "new"], "path": ["a.wav", "b.wav"]}), root=manifest.root)
    assert ask(grown, store) is None
    (job,) = jobs_of(manifest, store, OPTIONS, name="another")
    assert finished(manifest, store, job, OPTIONS, "cpu") is None
    assert finished(manifest, None, FeaturizeJob(manifest, store, "x", OPTIONS, options=FeaturizeOptions()), OPTIONS,
                    "cpu") is None  # fmt: skip


def test_other_audio_under_the_same_ids_is_refused(made: tuple[Manifest, FeatureStore], tmp_path: Path) -> None:
    louder = corpus(tmp_path / "other", 1)
    with pytest.raises(IdentityMismatch, match=r"'a'.*--again mismatched"):
        ask(louder, made[1])


@pytest.mark.parametrize("name", ["tiny-hubert", "tiny-wavlm"])
@pytest.mark.parametrize("changes", [{}, {"layers": "1,2", "pool": "mean"}, {"dtype": "int8", "window": "10s+2s"}])
def test_the_description_is_the_specification_of_the_loaded_encoder(name: str, changes: dict[str, str]) -> None:
    options = EncoderOptions(name, **changes)  # type: ignore[arg-type]
    description = described(options, "cpu")
    assert description is not None
    assert description.fingerprint == load_with(options, "cpu").spec.fingerprint
