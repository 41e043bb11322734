"""Jobs for several processes, and the results of one process alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from featurestore.asr.source import Transcript
from featurestore.asr.transcripts import Transcripts
from featurestore.corpus.manifest import Manifest
from featurestore.encoders.load import load_with
from featurestore.encoders.options import EncoderOptions
from featurestore.featurize.job import FeaturizeJob, FeaturizeOptions
from featurestore.featurize.run import FeaturizeReport, featurize
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_text_encoder import save_text_encoder

N = 24


def noises(directory: Path, encoder: str = "tiny-hubert") -> FeaturizeJob:
    """Return the job of encoding 24 noises and 2 files that are no audio."""
    rng = np.random.default_rng(0)
    for i in range(N):
        soundfile.write(directory / f"{i}.wav", 0.1 * rng.standard_normal(8_000 + 700 * i), 16_000)
    for i in (N, N + 1):
        (directory / f"{i}.wav").write_text("no audio")
    table = pa.table({"utterance_id": [f"u{i}" for i in range(N + 2)], "path": [f"{i}.wav" for i in range(N + 2)]})
    Manifest(table, root=directory).write(directory / "m.csv")
    return FeaturizeJob(directory / "m.csv", directory / "store", "a", EncoderOptions(encoder))


def transcribed(directory: Path) -> FeaturizeJob:
    """Return the job of encoding the transcripts of 8 of 9 utterances with a small BERT."""
    rows = [Transcript(f"u{i}", " ".join(f"w{j}" for j in range(i)), "en", -0.1, 0.0, 1.0) for i in range(8)]
    texts = Transcripts(rows, "whisper-mini", directory / "t.csv")
    texts.write()
    columns = {"utterance_id": [f"u{i}" for i in range(9)], "text": ["what the script had"] * 9}
    Manifest(pa.table(columns)).write(directory / "m.csv")
    encoder = EncoderOptions(str(save_text_encoder(directory / "bert")), source=texts.source)
    return FeaturizeJob(
        directory / "m.csv", directory / "store", "t", encoder, options=FeaturizeOptions(transcripts=texts)
    )


def manifest_of(job: FeaturizeJob) -> Path:
    assert isinstance(job.manifest, Path)
    return job.manifest


def store_of(job: FeaturizeJob) -> Path:
    assert isinstance(job.store, Path)
    return job.store


def same_as_alone(job: FeaturizeJob) -> None:
    """Assert that the set of noises equals that of one process."""
    store = FeatureStore.open(store_of(job))
    assert isinstance(job.encoder, EncoderOptions)
    featurize(Manifest.read(manifest_of(job)), load_with(job.encoder, "cpu"), store, "alone")
    assert sorted(store["a"]) == sorted(store["alone"])
    for key in store["alone"]:
        assert np.array_equal(store["a"][key], store["alone"][key])
    assert store["a"].verify() == []


def texts_as_alone(job: FeaturizeJob, report: FeaturizeReport) -> None:
    """Assert that the set of texts, and the report, are those of one process."""
    assert (report.done, report.empty_texts, [key for key, _ in report.failed]) == (8, 1, ["u8"])
    store = FeatureStore.open(store_of(job))
    assert isinstance(job.encoder, EncoderOptions)
    encoder = load_with(job.encoder, "cpu")
    featurize(Manifest.read(manifest_of(job)), encoder, store, "alone", transcripts=job.options.transcripts)
    assert sorted(store["t"]) == sorted(store["alone"])
    for key in store["alone"]:
        assert np.array_equal(store["t"][key], store["alone"][key])
