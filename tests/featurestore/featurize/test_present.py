"""An id that stands for other audio than when it was encoded is never skipped in silence."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.audio import decode
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.errors import ConfigError, IdentityMismatch, StoreError
from featurestore.featurize.items import audio_items
from featurestore.featurize.plan import plan
from featurestore.featurize.present import Again
from featurestore.featurize.run import FeaturizeReport, featurize
from featurestore.featurize.sharding import Shard
from featurestore.sets import sources
from featurestore.sets.sources import Recorder, compare
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions

LOGMEL = load_encoder("logmel")


def corpus(directory: Path, seed: int, lengths: dict[str, int], suffix: str = ".wav") -> Manifest:
    """Return a noise of so many samples for each id."""
    directory.mkdir()
    rng = np.random.default_rng(seed)
    for key, n in lengths.items():
        soundfile.write(directory / f"{key}{suffix}", 0.1 * rng.standard_normal(n), 16_000)
    return manifest_of(directory, list(lengths), suffix)


def manifest_of(directory: Path, keys: list[str], suffix: str = ".wav") -> Manifest:
    return Manifest(pa.table({"utterance_id": keys, "path": [f"{key}{suffix}" for key in keys]}), root=directory)


def run(manifest: Manifest, store: FeatureStore, **options: object) -> FeaturizeReport:
    return featurize(manifest, LOGMEL, store, "logmel", **options)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store")


@pytest.fixture
def first(tmp_path: Path, store: FeatureStore) -> Manifest:
    manifest = corpus(tmp_path / "first", 0, {"DC_a01": 58_368, "DC_a02": 16_000})
    assert run(manifest, store).done == 2
    return manifest


def test_an_id_of_another_recording_is_refused_with_both_durations(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    second = corpus(tmp_path / "second", 1, {"DC_a01": 48_064, "DC_b07": 9_000})
    with pytest.raises(IdentityMismatch, match=r"(?s)DC_a01.*3\.004 s.*3\.648 s.*--again mismatched"):
        run(second, store)
    assert sorted(store["logmel"]) == ["DC_a01", "DC_a02"]
    with pytest.raises(IdentityMismatch, match="DC_a01"):
        plan(second, LOGMEL, store, "logmel")


def test_mismatched_makes_utterances_anew_that_have_two_copies_of_different_data(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    other = FeatureStore.create(tmp_path / "other")
    run(corpus(tmp_path / "second", 1, {"DC_a01": 58_368}), other)
    (segment,) = (other.path / "logmel").glob("seg-*")
    shutil.copytree(segment, store.path / "logmel" / segment.name)
    assert len(store["logmel"].verify()) == 1
    run(first, store, again=Again(mismatched=True))
    assert store["logmel"].verify() == []
    assert compare(dict(zip(first.keys, first.audios, strict=True)), store["logmel"]).mismatches == []


def test_what_replaces_some_utterances_loses_no_copy_of_others(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    """Of a key with two copies of different data none is removed silently, and shards settle those of all shards."""
    other = FeatureStore.create(tmp_path / "other")
    run(corpus(tmp_path / "second", 1, {"DC_a01": 58_368, "DC_a02": 16_000}), other)
    (segment,) = (other.path / "logmel").glob("seg-*")
    shutil.copytree(segment, store.path / "logmel" / segment.name)
    segments = sorted(path.name for path in (store.path / "logmel").iterdir())
    with pytest.raises(StoreError, match=r"DC_a02.*Nothing was removed"):
        run(manifest_of(tmp_path / "first", ["DC_a01"], ".wav"), store, again=Again(frozenset({"DC_a01"})))
    assert sorted(path.name for path in (store.path / "logmel").iterdir()) == segments
    for number in (1, 2):
        run(first, store, again=Again(mismatched=True), shard=Shard(number, 2))
    assert store["logmel"].verify() == []
    assert compare(dict(zip(first.keys, first.audios, strict=True)), store["logmel"]).n_compared == 2


def test_equal_durations_but_other_samples_are_refused(tmp_path: Path, store: FeatureStore, first: Manifest) -> None:
    second = corpus(tmp_path / "second", 1, {"DC_a01": 58_368, "DC_a02": 16_000})
    with pytest.raises(IdentityMismatch, match=r"(?s)has 2 of these ids.*DC_a01.*DC_a02"):
        run(second, store)


def test_other_samples_under_the_same_size_and_date_are_refused(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    """As archives unpack them: every file of one date, and of one size where the clips are equally long."""
    second = corpus(tmp_path / "second", 1, {"DC_a01": 58_368, "DC_a02": 16_000})
    for key in second.keys:
        stat = (tmp_path / "first" / f"{key}.wav").stat()
        os.utime(tmp_path / "second" / f"{key}.wav", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    with pytest.raises(IdentityMismatch, match="has 2 of these ids"):
        run(second, store)


def test_a_copy_of_another_date_is_the_same_utterance(tmp_path: Path, store: FeatureStore, first: Manifest) -> None:
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    os.utime(tmp_path / "copy" / "DC_a01.wav", (1.0, 1.0))
    copied = manifest_of(tmp_path / "copy", list(first.keys))
    report = run(copied, store)
    assert (report.done, report.skipped, report.n_unrecorded) == (0, 2, 0)


def test_the_same_samples_in_another_container_are_the_same_utterance(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    (tmp_path / "flac").mkdir()
    for key in first.keys:
        samples, rate = soundfile.read(tmp_path / "first" / f"{key}.wav", dtype="int16")
        soundfile.write(tmp_path / "flac" / f"{key}.flac", samples, rate)
    assert run(manifest_of(tmp_path / "flac", list(first.keys), ".flac"), store, verify_audio=True).skipped == 2


def test_a_new_version_of_the_decoder_alone_is_no_mismatch(
    store: FeatureStore, first: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "decoder_of", lambda path: "soundfile 99.0 (libsndfile-9.9)")
    assert run(first, store, verify_audio=True).skipped == 2


def test_a_file_replaced_under_its_date_is_found_by_verify_audio(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    path = tmp_path / "first" / "DC_a01.wav"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    with pytest.raises(IdentityMismatch, match="DC_a01"):
        run(first, store, verify_audio=True)


def test_again_mismatched_encodes_what_differs_and_nothing_else(
    tmp_path: Path, store: FeatureStore, first: Manifest
) -> None:
    stored = store["logmel"]["DC_a02"].copy()
    path = tmp_path / "first" / "DC_a01.wav"
    soundfile.write(path, np.zeros(8_000), 16_000)
    report = run(first, store, again=Again(mismatched=True))
    assert (report.done, report.skipped, report.n_again) == (1, 1, 1)
    features = store["logmel"]
    assert features.durations_s(["DC_a01"]).tolist() == [0.5]
    assert np.array_equal(features["DC_a02"], stored)
    assert features.verify() == []
    assert run(first, store, verify_audio=True).skipped == 2


def test_again_with_ids_encodes_these(store: FeatureStore, first: Manifest) -> None:
    report = run(first, store, again=Again.parse(["DC_a02"], first))
    assert (report.done, report.skipped, report.n_again) == (1, 1, 1)
    with pytest.raises(ConfigError, match=r"DC_a0.*mean .DC_a0[12]"):
        Again.parse(["DC_a0"], first)


@pytest.mark.parametrize("again", [Again(frozenset({"DC_a01"})), Again(mismatched=True)], ids=["key", "mismatched"])
def test_rows_stay_where_the_audio_to_encode_again_cannot_be_decoded(
    store: FeatureStore, first: Manifest, again: Again
) -> None:
    before = np.array(store["logmel"]["DC_a01"])
    soundfile.write(first.audio_path(1), np.full(8_000, 0.1), 16_000)
    os.truncate(first.audio_path(0), 2_000)
    report = run(first, store, again=Again(again.keys | {"DC_a02"}, again.mismatched))
    assert (report.done, report.n_again, report.skipped) == (1, 1, 0)
    ((key, reason),) = report.failed
    assert key == "DC_a01"
    assert mentions(reason, "DC_a01.wav", "stays")
    assert np.array_equal(FeatureStore.open(store.path)["logmel"]["DC_a01"], before)
    if again.keys:
        first.audio_path(0).unlink()  # such as of a disk that is not there today
        assert [key for key, _ in run(first, store, again=again).failed] == ["DC_a01"]
        assert np.array_equal(FeatureStore.open(store.path)["logmel"]["DC_a01"], before)


def test_a_set_made_before_identities_is_compared_by_duration_and_counted(tmp_path: Path, store: FeatureStore) -> None:
    manifest = corpus(tmp_path / "c", 0, {"a": 16_000, "b": 32_000})
    with store.writer("logmel", LOGMEL.spec) as writer:
        writer.append("a", [np.zeros((50, LOGMEL.spec.dim))], 1.0)
    report = run(manifest, store)
    assert (report.done, report.skipped, report.n_unrecorded) == (1, 1, 1)
    shorter = corpus(tmp_path / "d", 0, {"a": 48_000})
    with pytest.raises(IdentityMismatch, match=r"3\.000 s.*1\.000 s"):
        run(shorter, store)


def test_files_that_are_gone_are_counted_and_no_error(tmp_path: Path, store: FeatureStore, first: Manifest) -> None:
    (tmp_path / "first" / "DC_a02.wav").unlink()
    report = run(first, store)
    assert (report.skipped, report.n_unreachable) == (2, 1)


def test_a_piece_of_another_place_in_the_same_file_is_refused(tmp_path: Path, store: FeatureStore) -> None:
    recording = corpus(tmp_path / "c", 0, {"u": 48_000})
    columns = {"utterance_id": ["a"], "path": ["u.wav"], "start_s": [0.0], "end_s": [1.0]}
    run(Manifest(pa.table(columns), root=recording.root), store)
    assert run(Manifest(pa.table(columns), root=recording.root), store).skipped == 1
    moved = Manifest(pa.table({**columns, "start_s": [1.5], "end_s": [2.5]}), root=recording.root)
    with pytest.raises(IdentityMismatch, match=r"1\.5 s to 2\.5 s"):
        run(moved, store)


def test_an_end_that_a_manifest_wrote_with_float_noise_is_the_same_piece(
    tmp_path: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = corpus(tmp_path / "c", 0, {"u": 48_000})
    columns = {"utterance_id": ["a"], "path": ["u.wav"], "start_s": [0.1], "end_s": [0.1 + 0.2]}
    run(Manifest(pa.table(columns), root=recording.root), store)
    decoded: list[object] = []
    monkeypatch.setattr(sources, "decode", lambda source: decoded.append(source) or decode(source))
    assert run(Manifest(pa.table({**columns, "end_s": [0.3]}), root=recording.root), store).skipped == 1
    assert not decoded


def test_a_text_that_changed_is_refused(tmp_path: Path, store: FeatureStore) -> None:
    with store.writer("t", LOGMEL.spec) as writer:
        for key, text in (("a", "dogs"), ("b", "kids")):
            writer.append(key, [np.zeros((1, LOGMEL.spec.dim))], identity=Recorder(text).identity)
    comparison = compare({"a": "dogs", "b": "cats", "c": "new"}, store["t"])
    assert [mismatch.key for mismatch in comparison.mismatches] == ["b"]
    assert comparison.n_compared == 2


def test_1440_clips_are_compared_in_well_under_a_second(tmp_path: Path, store: FeatureStore) -> None:
    manifest = corpus(tmp_path / "c", 0, {"u": 16_000})
    item = audio_items(manifest)[0][0]
    recorder = Recorder(item.source)
    recorder(np.zeros(16_000, np.float32))
    paths = {}
    with store.writer("x", LOGMEL.spec) as writer:
        for i in range(1440):
            paths[f"u{i}"] = tmp_path / "c" / f"u{i}.wav"
            os.link(tmp_path / "c" / "u.wav", paths[f"u{i}"])
            writer.append(f"u{i}", [np.zeros((1, LOGMEL.spec.dim))], 1.0, recorder.identity)
    features = store["x"]
    assert len(features) == 1440
    started = time.process_time()
    comparison = compare(paths, features)
    assert time.process_time() - started < 1.0
    assert (comparison.n_compared, comparison.mismatches) == (1440, [])
