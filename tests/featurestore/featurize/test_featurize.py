"""featurize: each utterance once, failures reported and retried, the same rows in any order, nothing lost on a stop."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.commands.featurize_report import say_report
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import Encoder, load_encoder
from featurestore.errors import ManifestError, SpecMismatch, StoreError
from featurestore.featurize import decode_ahead, trial
from featurestore.featurize.items import Item, items_of
from featurestore.featurize.parts import merged
from featurestore.featurize.plan import plan
from featurestore.featurize.run import featurize
from featurestore.featurize.sharding import Shard
from featurestore.featurize.stream import Encoded, iter_encode
from featurestore.featurize.trial import check_rows, tolerances
from featurestore.runtime.stopping import Interrupted
from featurestore.runtime.wording import special_texts
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_corpus import medusa
from tests.helpers.small_text_encoder import save_text_encoder
from tests.helpers.warm_python import run_warm

LENGTHS = {"a/../b": 9_000, "c d": 16_000, "語": 300, "e": 12_345, "f": 9_000, "g": 40_000}


@pytest.fixture
def corpus(tmp_path: Path) -> Manifest:
    """Six noises of mixed lengths and rates; keys that would be bad file names."""
    rng = np.random.default_rng(0)
    paths = []
    for i, (key, n_samples) in enumerate(LENGTHS.items()):
        paths.append(f"{i}.wav")
        soundfile.write(tmp_path / paths[-1], 0.1 * rng.standard_normal(n_samples), 8_000 if key == "e" else 16_000)
    texts = ["kids are talking", "", "dogs", "by the door", " ", "dogs are sitting by the door"]
    table = pa.table({"utterance_id": list(LENGTHS), "path": paths, "text": texts})
    return Manifest(table, root=tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(tmp_path / "store")


class Recorder(Encoder):
    """A 20-line encoder: one row per input, holding its length; remembers the batches and can fail on demand."""

    kind, layers_available, default_batch_frames, name = "audio", 0, 100, "recorder"
    device, window_frames = "cpu", 100

    def __init__(self, on_encode: Callable[[Sequence[np.ndarray], int], None] = lambda batch, max_frames: None) -> None:
        self.spec = load_encoder("logmel").spec
        self.batches: list[list[int]] = []
        self.on_encode = on_encode

    def n_frames(self, n_samples: int) -> int:
        return n_samples // 320

    def cost(self, item: int | str) -> int:
        return self.n_frames(int(item))

    def start(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
        self.on_encode(batch, max_frames or self.default_batch_frames)
        self.batches.append([len(x) for x in batch])
        return lambda: [np.full((1, 1, 80), len(x) / 1e5, np.float32) for x in batch]


def rows_of(store: FeatureStore, name: str) -> dict[str, np.ndarray]:
    features = store[name]
    return {key: np.array(features[key]) for key in features}


def test_every_utterance_is_stored_once_with_the_encoders_rows(corpus: Manifest, store: FeatureStore) -> None:
    encoder = load_encoder("tiny-hubert", layers="2,4", device="cpu")
    states: list[tuple[int, int, float]] = []
    report = featurize(corpus, encoder, store, "hubert", progress=lambda *state: states.append(state))
    assert (report.done, report.skipped, report.failed) == (6, 0, [])
    # 12,345 samples at 8 kHz are 24,690 at 16 kHz.
    assert report.audio_s == pytest.approx((sum(LENGTHS.values()) + 12_345) / 16_000)
    assert (states[0][:2], states[-1][:2]) == ((1, 6), (6, 6))
    assert [state[0] for state in states] == sorted({state[0] for state in states})
    features = store["hubert"]
    assert features.spec == encoder.spec
    assert set(features) == set(LENGTHS)
    assert features.provenance["torch"]
    from featurestore.audio import decode

    for i, key in enumerate(corpus.keys):
        expected = encoder.encode([decode(corpus.audio_path(i))])[0].astype(np.float16)
        np.testing.assert_array_equal(features.array(key, "layer_02"), expected[0])
        np.testing.assert_array_equal(features.array(key, "layer_04"), expected[1])


def test_clips_of_one_value_are_stored_counted_and_named(corpus: Manifest, store: FeatureStore, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "0.wav", np.zeros(9_000), 16_000)
    soundfile.write(tmp_path / "5.wav", np.full(9_000, 0.25), 16_000)
    report = featurize(corpus, load_encoder("logmel"), store, "mel")
    assert (report.done, sorted(report.constant)) == (6, ["a/../b", "g"])
    corpus.write(tmp_path / "m.csv")
    output = medusa("featurize", "-m", tmp_path / "m.csv", "-s", tmp_path / "s", "--encoder", "logmel").stdout
    assert "2 silent" in output


def test_a_rerun_does_only_the_rest_and_tries_failures_again(
    corpus: Manifest, store: FeatureStore, tmp_path: Path
) -> None:
    encoder = load_encoder("logmel")
    good = (tmp_path / "3.wav").read_bytes()
    (tmp_path / "3.wav").write_text("not audio")
    (tmp_path / "1.wav").rename(tmp_path / "away.wav")
    report = featurize(corpus, encoder, store, "mel")
    assert (report.done, report.skipped) == (4, 0)
    reasons = dict(report.failed)
    assert set(reasons) == {"e", "c d"}
    assert "not audio that can be decoded" in reasons["e"]
    assert "no such file" in reasons["c d"]
    (tmp_path / "3.wav").write_bytes(good)
    report = featurize(corpus, encoder, store, "mel")
    assert (report.done, report.skipped, [key for key, _ in report.failed]) == (1, 4, ["c d"])
    assert len(store["mel"]) == 5


def test_a_row_without_audio_fails_alone(corpus: Manifest, store: FeatureStore, tmp_path: Path) -> None:
    paths = corpus.column("path").tolist()
    table = corpus.to_arrow().set_column(1, "path", pa.array([None, *paths[1:]]))
    report = featurize(Manifest(table, root=tmp_path), load_encoder("logmel"), store, "mel")
    assert report.done == 5
    assert "has no audio path" in dict(report.failed)["a/../b"]
    with pytest.raises(ManifestError, match="path"):
        featurize(Manifest(table.drop_columns(["path"])), load_encoder("logmel"), store, "mel")


def test_other_settings_under_the_same_name_are_refused(corpus: Manifest, store: FeatureStore) -> None:
    featurize(corpus, load_encoder("logmel"), store, "mel")
    with pytest.raises(SpecMismatch, match="pool"):
        featurize(corpus, load_encoder("logmel", pool="mean"), store, "mel")


@pytest.mark.parametrize("encoder", ["tiny-wavlm", "logmel"])
def test_order_of_the_files_and_number_of_threads_change_nothing(
    corpus: Manifest, store: FeatureStore, encoder: str
) -> None:
    loaded = load_encoder(encoder, device="cpu")
    featurize(corpus, loaded, store, "forward", workers=1)
    featurize(corpus.rows([4, 2, 0, 5, 3, 1]), loaded, store, "permuted", workers=3)
    forward, permuted = rows_of(store, "forward"), rows_of(store, "permuted")
    assert list(forward) == list(permuted)
    for key, rows in forward.items():
        np.testing.assert_array_equal(rows, permuted[key])
    # Not only the rows: the segments, whose names derive from what is in them.
    names = [sorted(p.name for p in (store.path / s).glob("seg-*")) for s in ("forward", "permuted")]
    assert names[0] == names[1]


def segments(store: FeatureStore, name: str) -> dict[str, bytes]:
    """Every file of a set's segments, whose names derive from what is in them."""
    root = store.path / name
    return {str(p.relative_to(root)): p.read_bytes() for p in root.glob("seg-*/**/*") if p.is_file()}


@pytest.mark.parametrize("encoder", ["tiny-hubert", "tiny-wavlm"])
def test_workers_limits_and_overlap_change_no_byte_of_the_store(
    corpus: Manifest, store: FeatureStore, encoder: str
) -> None:
    loaded = load_encoder(encoder, device="cpu", layers="all", dtype="float32")
    featurize(corpus, loaded, store, "plain", workers=1)
    featurize(corpus, loaded, store, "again", workers=3)
    featurize(corpus, loaded, store, "limited", max_memory_gib=1e3)
    loaded.overlaps = True  # the order of work that a GPU has
    featurize(corpus, loaded, store, "overlapping")
    assert len(segments(store, "plain")) > 6
    for name in ("again", "limited", "overlapping"):
        assert segments(store, name) == segments(store, "plain")


def test_padded_batches_and_threads_of_arithmetic_differ_by_rounding_alone(
    corpus: Manifest, store: FeatureStore
) -> None:
    """Both cut sums another way: oneDNN and MKL choose their blocks by shape and by number of threads."""
    torch = pytest.importorskip("torch")
    loaded = load_encoder("tiny-hubert", device="cpu", dtype="float32")
    featurize(corpus, loaded, store, "plain")
    featurize(corpus, loaded, store, "batches", batch_s=60.0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        featurize(corpus, loaded, store, "threads")
    finally:
        torch.set_num_threads(before)
    for name in ("batches", "threads"):
        for key, rows in rows_of(store, "plain").items():
            worst = np.linalg.norm(rows_of(store, name)[key] - rows, axis=1) / np.linalg.norm(rows, axis=1)
            assert worst.max() <= 1e-5


def test_batches_are_sorted_by_length_within_the_budget_whatever_the_threads(corpus: Manifest) -> None:
    items = [Item(key, corpus.audio_path(i)) for i, key in enumerate(corpus.keys)]
    for workers in (1, 4):
        recorder = Recorder()
        results = list(iter_encode(recorder, items, workers=workers))
        assert recorder.batches == [[40_000], [24_690], [16_000, 9_000], [9_000, 300]]
        assert [r.key for r in results] == ["g", "e", "c d", "a/../b", "f", "語"]
    recorder = Recorder()
    list(iter_encode(recorder, items[::-1], batch_s=10.0))
    assert recorder.batches == [[40_000, 24_690, 16_000, 9_000], [9_000, 300]]


def test_out_of_memory_halves_the_batch_and_goes_on(corpus: Manifest) -> None:
    def full_above(n_frames: int) -> Callable[[Sequence[np.ndarray], int], None]:
        def check(batch: Sequence[np.ndarray], max_frames: int) -> None:
            if max_frames > n_frames:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

        return check

    items = [Item(key, corpus.audio_path(i)) for i, key in enumerate(corpus.keys)]
    results = list(iter_encode(Recorder(full_above(30)), items, batch_s=100.0))
    assert all(r.rows is not None for r in results)

    def never_long(batch: Sequence[np.ndarray], max_frames: int) -> None:
        if any(len(x) > 30_000 for x in batch):
            raise MemoryError

    results = list(iter_encode(Recorder(never_long), items, batch_s=100.0))
    assert [r.key for r in results if r.rows is None] == ["g"]
    assert "out of memory" in next(r.error for r in results if r.rows is None)


def test_a_batch_that_fits_at_its_second_try_is_not_halved(corpus: Manifest) -> None:
    failures = ["GET was unable to find an engine to execute this computation"]

    def fragmented(batch: Sequence[np.ndarray], max_frames: int) -> None:
        if failures:
            raise RuntimeError(failures.pop())

    recorder = Recorder(fragmented)
    items = [Item(key, corpus.audio_path(i)) for i, key in enumerate(corpus.keys)]
    assert all(result.rows is not None for result in iter_encode(recorder, items, batch_s=10.0))
    assert recorder.batches[-2:] == [[40_000, 24_690, 16_000, 9_000], [9_000, 300]]


def test_a_batch_is_sent_before_the_rows_of_the_one_before_are_there(corpus: Manifest) -> None:
    events: list[str] = []

    class Overlapping(Recorder):
        overlaps = True

        def start(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
            n = len(self.batches)
            events.append(f"start {n}")
            rows = super().start(batch, max_frames)()

            def wait() -> list[np.ndarray]:
                events.append(f"wait {n}")
                return rows

            return wait

    items = [Item(key, corpus.audio_path(i)) for i, key in enumerate(corpus.keys)]
    items.append(Item("absent", Path("absent.wav")))
    result = {encoded.key: encoded for encoded in iter_encode(Overlapping(), items)}
    assert events == [
        "start 0", "start 1", "wait 0", "start 2", "wait 1", "start 3", "wait 2", "wait 3",
    ]  # fmt: skip
    for encoded in iter_encode(Recorder(), items):
        np.testing.assert_array_equal(result[encoded.key].rows, encoded.rows)
    assert result["absent"].rows is None


def test_an_error_of_the_encoder_itself_is_not_swallowed(corpus: Manifest, store: FeatureStore) -> None:
    def broken(batch: Sequence[np.ndarray], max_frames: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        featurize(corpus, Recorder(broken), store, "mel")


@pytest.mark.parametrize("value", [np.nan, 1e6])
def test_rows_that_do_not_fit_the_store_fail_alone(corpus: Manifest, store: FeatureStore, value: float) -> None:
    class Overflowing(Recorder):
        def start(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> Callable[[], list[np.ndarray]]:
            rows = super().start(batch, max_frames)()
            return lambda: [np.full_like(r, value) if len(x) == 300 else r for x, r in zip(batch, rows, strict=True)]

    report = featurize(corpus, Overflowing(), store, "mel")
    assert report.done == 5
    assert [key for key, _ in report.failed] == ["語"]
    assert "float32" in report.failed[0][1]


def test_a_full_disk_is_not_reported_as_the_files_fault(
    corpus: Manifest, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise StoreError("can't be written: no space left") from OSError(28, "No space left on device")

    monkeypatch.setattr("featurestore.sets.writer.FeatureWriter.append", refuse)
    with pytest.raises(StoreError, match="no space left"):
        featurize(corpus, load_encoder("logmel"), store, "mel")


def test_an_empty_text_has_a_row_and_is_counted(corpus: Manifest, store: FeatureStore) -> None:
    class Words(Recorder):
        kind = "text"

        def cost(self, item: int | str) -> int:
            return len(str(item).split()) + 2

        def is_empty(self, item: Any) -> bool:
            return not str(item).split()

    report = featurize(corpus, Words(), store, "words")
    assert (report.done, report.empty_texts, report.audio_s) == (6, 2, 0.0)
    assert len(store["words"]) == 6


def test_inputs_longer_than_a_window_are_counted(
    corpus: Manifest, store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = load_encoder("tiny-hubert", window="0.8s+0.1s", device="cpu")
    n_long = sum(soundfile.info(path).duration > 0.83 for path in map(corpus.audio_path, range(len(corpus))))
    report = merged([featurize(corpus, encoder, store, "hubert")])
    assert 0 < n_long < len(corpus)
    assert report.n_in_windows == n_long
    say_report("hubert", report)
    assert f"{n_long} longer than a window" in capsys.readouterr().out


def test_texts_that_spell_a_special_token_are_named(tmp_path: Path) -> None:
    texts = ["w1 [SEP] w2", "w1 [ SEP ] w2", "unseen", "[UNK]", "w1"]
    manifest = Manifest(pa.table({"utterance_id": list("abcde"), "text": texts}))
    encoder = load_encoder(str(save_text_encoder(tmp_path / "mini")), device="cpu")
    report = featurize(manifest, encoder, FeatureStore.create(tmp_path / "s"), "t")
    assert sorted(report.special) == [("a", "[SEP]"), ("d", "[UNK]")]
    assert merged([report, report]).special == report.special * 2
    assert special_texts([("a", "[SEP]"), ("d", "[UNK]")], 1).endswith("[SEP] in a and 1 more")


def test_a_plan_reports_the_size_before_anything_is_encoded(
    corpus: Manifest, store: FeatureStore, tmp_path: Path
) -> None:
    (tmp_path / "5.wav").unlink()
    encoder = load_encoder("tiny-hubert", layers="all", device="cpu")
    expected = plan(corpus, encoder, store, "hubert")
    assert (expected.n_utterances, expected.n_skipped, [key for key, _ in expected.failed]) == (5, 0, ["g"])
    featurize(corpus, encoder, store, "hubert")
    features = store["hubert"]
    assert expected.n_rows == int(features.lengths(list(features)).sum())
    assert expected.n_bytes == sum(features.array(k, layer).nbytes for k in features for layer in features.layers)
    after = plan(corpus, encoder, store, "hubert")
    assert (after.n_utterances, after.n_skipped, after.n_bytes) == (0, 5, 0)


def test_an_interrupt_while_encoding_keeps_what_is_finished(corpus: Manifest, store: FeatureStore) -> None:
    def interrupt_third(batch: Sequence[np.ndarray], max_frames: int) -> None:
        if len(recorder.batches) == 2:
            signal.raise_signal(signal.SIGTERM)

    recorder = Recorder(interrupt_third)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        featurize(corpus, recorder, store, "mel")
    assert signal.getsignal(signal.SIGTERM) is before
    assert (caught.value.signum, caught.value.report.done) == (signal.SIGTERM, 2)
    assert set(store["mel"]) == {"g", "e"}
    recorder.on_encode = lambda batch, max_frames: None
    report = featurize(corpus, recorder, store, "mel")
    assert (report.done, report.skipped) == (4, 2)


def test_an_interrupt_while_writing_waits_for_the_utterance(
    corpus: Manifest, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featurestore.sets.writer import FeatureWriter

    append = FeatureWriter.append

    def append_interrupted(self: FeatureWriter, *args: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        append(self, *args, **options)

    monkeypatch.setattr(FeatureWriter, "append", append_interrupted)
    with pytest.raises(Interrupted) as caught:
        featurize(corpus, Recorder(lambda batch, max_frames: time.sleep(0.05)), store, "mel")
    # All that was encoded by then is whole, in order, and counted.
    assert 1 <= caught.value.report.done == len(store["mel"]) < 6
    assert set(store["mel"]) == set(["g", "e", "c d", "a/../b", "f"][: caught.value.report.done])
    assert store["mel"].verify() == []


def test_it_runs_in_a_thread_that_may_not_set_signal_handlers(corpus: Manifest, store: FeatureStore) -> None:
    thread = threading.Thread(target=featurize, args=(corpus, Recorder(), store, "mel"))
    thread.start()
    thread.join()
    assert len(store["mel"]) == 6


def test_a_killed_run_loses_no_committed_segment_and_the_next_one_finishes(
    corpus: Manifest, store: FeatureStore, tmp_path: Path
) -> None:
    corpus.write(tmp_path / "corpus.csv")
    code = f"""
import os, signal
from featurestore.encoders import Encoder, load_encoder
from featurestore.featurize.run import featurize
from featurestore.commands.featurize_report import say_report
from featurestore.corpus.manifest import Manifest
from featurestore.sets.writer import FeatureWriter
from featurestore.store.feature_store import FeatureStore
append, count = FeatureWriter.append, 0
def append_then_die(self, *args, **options):
    global count
    append(self, *args, **options)
    count += 1
    if count == 3: self.commit()
    if count == 5: os.kill(os.getpid(), signal.SIGKILL)
FeatureWriter.append = append_then_die
manifest = Manifest.read({str(tmp_path / "corpus.csv")!r})
featurize(manifest, load_encoder("logmel"), FeatureStore.open({str(store.path)!r}), "mel")
"""
    process = run_warm(code)
    assert process.returncode == -signal.SIGKILL
    assert set(store["mel"]) == {"g", "e", "c d"}
    report = featurize(corpus, load_encoder("logmel"), store, "mel")
    assert (report.done, report.skipped) == (3, 3)
    assert store["mel"].verify() == []


def test_what_a_kill_can_cost_is_bounded_where_rows_are_small(
    corpus: Manifest, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.featurize.run.COMMIT_AUDIO_S", 2.0)
    pooled = load_encoder("logmel", pool="mean")
    assert featurize(corpus, pooled, store, "mel").done == 6
    # Longest first: 2.5 s; 1.5 and 1 s; the rest is 1.1 s.
    assert sorted(segment.n_utterances for segment in store["mel"].segments) == [1, 2, 3]
    assert store["mel"].verify() == []


def test_new_files_are_encoded_without_a_manifest(corpus: Manifest) -> None:
    items = [Item("x", corpus.audio_path(0)), Item("y", Path("absent.wav"))]
    results = {r.key: r for r in iter_encode(load_encoder("logmel"), items)}
    assert results["x"].rows is not None
    assert results["x"].rows.shape == (1, 27, 80)
    assert results["x"].duration_s == pytest.approx(9_000 / 16_000)
    assert isinstance(results["y"], Encoded)
    assert "no such file" in results["y"].error


def test_parts_of_a_manifest_fill_one_set(corpus: Manifest, store: FeatureStore) -> None:
    encoder = load_encoder("logmel")
    reports = [featurize(corpus, encoder, store, "parts", shard=Shard(n, 3)) for n in (1, 2, 3)]
    assert sorted(report.done for report in reports) == [2, 2, 2]
    featurize(corpus, encoder, store, "whole")
    assert sorted(store["parts"]) == sorted(store["whole"])
    for key in store["whole"]:
        assert np.array_equal(store["parts"][key], store["whole"][key])
    repeated = featurize(corpus, encoder, store, "parts", shard=Shard(2, 3))
    assert (repeated.done, repeated.skipped) == (0, 2)


def test_a_plan_can_estimate_the_time_from_a_trial(corpus: Manifest) -> None:
    encoder = load_encoder("logmel")
    assert np.isnan(plan(corpus, encoder).wall_s)
    planned = plan(corpus, encoder, trial_s=0.01)
    assert 0 < planned.wall_s < 60


def test_a_trial_decodes_with_as_many_threads_as_the_run_will(
    corpus: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder("tiny-hubert", device="cpu")
    encoder.device = "cuda:0"  # as the number of threads sees it
    workers: list[int] = []
    monkeypatch.setattr(decode_ahead, "usable_cores", lambda: 12)
    monkeypatch.setattr(trial, "iter_encode", lambda *arguments, **named: workers.append(named["workers"]) or [])
    plan(corpus, encoder, trial_s=0.01)
    assert set(workers) == {12}


def test_a_check_compares_alone_in_a_batch_and_stored(corpus: Manifest, store: FeatureStore) -> None:
    encoder = load_encoder("tiny-hubert")
    items, _ = items_of(corpus, encoder)
    featurize(corpus, encoder, store, "a")
    in_batch, stored = tolerances(encoder)
    checks = check_rows(encoder, items, 4, stored=store["a"])
    assert len(checks) == 4
    for check in checks:
        assert check.in_batch <= in_batch < check.stored <= stored
    float32_encoder = load_encoder("tiny-hubert", layers="1", dtype="float32")
    featurize(corpus, float32_encoder, store, "b")
    with store.writer("c", encoder.spec) as writer:  # rows of another layer under the asked name
        for key in store["b"]:
            writer.append(key, [store["b"][key]])
    assert all(check.stored > 0.1 for check in check_rows(encoder, items, 3, stored=store["c"]))


def test_a_check_finds_an_encoder_that_looks_at_its_batch(corpus: Manifest) -> None:
    class Leaky(Recorder):
        def encode(self, batch: Sequence[np.ndarray], max_frames: int | None = None) -> list[np.ndarray]:
            return [np.full((1, 3, 2), float(len(batch))) for _ in batch]

    items, _ = items_of(corpus, Leaky())
    assert all(each.in_batch > 1e-2 for each in check_rows(Leaky(), items, 6))
